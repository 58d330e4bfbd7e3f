#include <gtest/gtest.h>

#include <random>

#include "core/evaluate/packed_pass.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

// The products of the library are for CPUs with longer vectors; here they are slower, and the same.
TEST(CpuPassTest, EitherProductsGiveTheSameScores) {
  for (const char* name : {"phi", "llama"}) {
    auto model = Model::Load(ParityModel(std::string(name) + "-tiny"), {"cpu", "float32"});
    ASSERT_TRUE(model.ok()) << model.status();
    const auto evaluator = Evaluator::Create(**model, {});
    std::mt19937 random(1);
    std::vector<PrepareRequest> requests;
    for (int layer : {1, 0}) {
      Prompt prompt(9);
      for (TokenId& id : prompt) id = static_cast<TokenId>(random() % 512);
      requests.push_back({prompt, {layer, 3}, true});
    }
    auto prepared = evaluator->Prepare(requests);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    // Enough rows for several blocks a thread.
    std::vector<Candidate> candidates;
    for (int i = 0; i < 500; ++i) {
      Candidate candidate{(*prepared)[i % 2].get(), i % 9, {}};
      candidate.tokens.assign(9 - i % 9, 0);
      for (TokenId& id : candidate.tokens) id = static_cast<TokenId>(random() % 512);
      candidates.push_back(candidate);
    }
    const Layout layout = LayOut((*model)->config(), candidates);
    EvaluatorCounters counters;
    const PassResult own =
        MakeCpuPass(**model, CpuProducts::kOwn)->Run(candidates, layout, counters);
    const PassResult library =
        MakeCpuPass(**model, CpuProducts::kLibrary)->Run(candidates, layout, counters);
    ASSERT_EQ(own.surprisal.size(), static_cast<size_t>(layout.predicting));
    ASSERT_EQ(own.targets.size(), candidates.size());
    for (size_t i = 0; i < own.surprisal.size(); ++i) {
      ASSERT_NEAR(own.surprisal[i], library.surprisal[i], 1e-4 * (1 + own.surprisal[i])) << i;
    }
    for (size_t i = 0; i < own.targets.size(); ++i) {
      ASSERT_NEAR(own.targets[i], library.targets[i], 1e-4 * (1 + std::abs(own.targets[i]))) << i;
    }
    EXPECT_GT(counters.layer_seconds, 0);
    EXPECT_GT(counters.head_seconds, 0);
  }
}

}  // namespace
}  // namespace epo
