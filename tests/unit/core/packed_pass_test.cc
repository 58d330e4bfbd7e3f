#include "core/evaluate/packed_pass.h"

#include <gtest/gtest.h>

#include <random>

#include "core/evaluate/score.h"
#include "tests/unit/core/fake_recorder.h"
#include "tests/unit/core/host_kernels.h"
#include "tests/unit/core/targets.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

// A model, parents of many objectives, and enough candidates for several blocks a thread.
class PackedPassTest : public ::testing::TestWithParam<const char*> {
 protected:
  void Load(const char* dtype) {
    auto model = Model::Load(ParityModel(std::string(GetParam()) + "-tiny"), {"cpu", dtype});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    evaluator_ = Evaluator::Create(*model_, {});
    std::mt19937 random(1);
    std::vector<PrepareRequest> requests;
    std::vector<Objective> objectives = ManyObjectives(*model_);
    objectives.push_back(NeuronObjective(0, 3));
    // Its suffix ends at a lower layer than the tokens that are counted.
    objectives.push_back(NeuronObjective(0, 5));
    objectives.back().contexts = {{.prefix = {}, .suffix = {14, 15, 16}}};
    for (const Objective& objective : objectives) {
      Prompt prompt(9);
      for (TokenId& id : prompt) id = static_cast<TokenId>(random() % 512);
      requests.push_back({prompt, MakeTarget(*model_, objective), true});
    }
    auto prepared = evaluator_->Prepare(requests);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    parents_ = *std::move(prepared);
    for (int i = 0; i < 500; ++i) {
      Candidate candidate{parents_[i % parents_.size()].get(), i % 9, {}};
      candidate.tokens.assign(9 - i % 9, 0);
      for (TokenId& id : candidate.tokens) id = static_cast<TokenId>(random() % 512);
      candidates_.push_back(candidate);
    }
    PackCandidates();
  }

  void PackCandidates() {
    packed_ = Pack(candidates_);
    layout_ = LayOut(model_->config(), packed_.items);
  }

  PassResult Run(PackedPass& pass) {
    return pass.Run(packed_.items, packed_.changes, layout_, packed_.numbers, counters_);
  }
  PassResult Run(std::unique_ptr<PackedPass> pass) { return Run(*pass); }

  void ExpectEqual(const PassResult& a, const PassResult& b, double tolerance) {
    ASSERT_EQ(a.numbers.size(), packed_.numbers);
    ASSERT_EQ(b.numbers.size(), a.numbers.size());
    for (size_t i = 0; i < a.numbers.size(); ++i) {
      ASSERT_NEAR(a.numbers[i], b.numbers[i], tolerance * (1 + std::abs(a.numbers[i]))) << i;
    }
    ASSERT_EQ(a.changes.size(), packed_.changes.size());
    for (size_t i = 0; i < a.changes.size(); ++i) {
      ASSERT_NEAR(a.changes[i], b.changes[i], tolerance * 20) << i;
    }
  }

  std::unique_ptr<Model> model_;
  std::unique_ptr<Evaluator> evaluator_;
  std::vector<std::shared_ptr<const Prepared>> parents_;
  std::vector<Candidate> candidates_;
  Packed packed_;
  Layout layout_;
  EvaluatorCounters counters_;
};

INSTANTIATE_TEST_SUITE_P(Parity, PackedPassTest, ::testing::Values("phi", "llama"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(PackedPassTest, KernelsAndTensorOperationsGiveTheSameScores) {
  Load("float32");
  ExpectEqual(Run(MakeCpuPass(*model_)), Run(MakeTensorPass(*model_, {}, {})), 1e-4);
  EXPECT_GT(counters_.layer_seconds, 0);
  EXPECT_GT(counters_.head_seconds, 0);
}

// As on a GPU, whose kernels a host runs slowly.
TEST_P(PackedPassTest, TheGpusKernelsAndTensorOperationsGiveTheSameScores) {
  Load("float64");
  candidates_.resize(24);
  PackCandidates();
  const std::unique_ptr<GpuKernels> kernels = MakeHostKernels(at::kDouble);
  // RMSNorm is float32 inside.
  ExpectEqual(Run(MakeTensorPass(*model_, {}, {})),
              Run(MakeTensorPass(*model_, {.kernels = kernels.get()},
                                 {.rows = 16, .candidates = 8, .parents = 8})),
              std::string(GetParam()) == "phi" ? 1e-12 : 1e-5);
}

// As on a GPU, with sizes that leave something to fill everywhere, and with some that leave
// nothing.
TEST_P(PackedPassTest, BucketsChangeNoScore) {
  Load("float64");
  const PassResult exact = Run(MakeTensorPass(*model_, {}, {}));
  for (const PassBuckets& buckets : {PassBuckets{.rows = 256, .candidates = 64, .parents = 8},
                                     PassBuckets{.rows = 1, .candidates = 500, .parents = 2}}) {
    ExpectEqual(exact, Run(MakeTensorPass(*model_, {}, buckets)), 1e-12);
  }
}

// A recording must read from its inputs all that differs between passes of one shape.
TEST_P(PackedPassTest, RecordedPassesGiveTheScoresOfPlainOnes) {
  Load("float64");
  FakeRecorder recorder;
  const auto recorded = MakeTensorPass(*model_, {.recorder = &recorder},
                                       {.rows = 8192, .candidates = 2048, .parents = 8});
  std::mt19937 random(2);
  for (int round = 0; round < 4; ++round) {
    for (size_t i = 0; i < candidates_.size(); ++i) {
      Candidate& candidate = candidates_[i];
      // As many of each parent in every round, so that the rounds have one shape.
      candidate.parent = parents_[(i + round) % parents_.size()].get();
      candidate.first_changed = static_cast<int>(random() % 9);
      candidate.tokens.resize(9 - candidate.first_changed);
      for (TokenId& id : candidate.tokens) id = static_cast<TokenId>(random() % 512);
    }
    PackCandidates();
    ExpectEqual(Run(MakeTensorPass(*model_, {}, {})), Run(*recorded), 1e-12);
  }
  EXPECT_EQ(recorder.recordings, 1);
  EXPECT_EQ(recorder.replays, 3);
}

}  // namespace
}  // namespace epo
