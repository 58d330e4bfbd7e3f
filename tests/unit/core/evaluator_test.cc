#include "core/evaluate/evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/core/targets.h"
#include "tests/unit/core/temp_dir.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

using ::testing::HasSubstr;

class EvaluatorTestBase : public ::testing::Test {
 protected:
  void Load(const char* name, const char* dtype) {
    auto model = Model::Load(ParityModel(name), {"cpu", dtype});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    evaluator_ = Evaluator::Create(*model_, {});
    allowed_ = MakeAllowedTokens(*model_, false);
  }

  Prompt RandomPrompt(size_t length) {
    Prompt prompt(length);
    for (TokenId& id : prompt) id = static_cast<TokenId>(random_() % 512);
    return prompt;
  }

  std::shared_ptr<const Target> Neuron(int layer = 0, int neuron = 0) {
    return NeuronTarget(*model_, layer, neuron);
  }

  std::shared_ptr<const Prepared> Prepare(const Prompt& prompt) {
    return Prepare(prompt, Neuron());
  }
  std::shared_ptr<const Prepared> Prepare(const Prompt& prompt,
                                          const std::shared_ptr<const Target>& target,
                                          bool gradients = true) {
    const PrepareRequest request{prompt, target, gradients};
    auto prepared = evaluator_->Prepare({&request, 1});
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared->front();
  }

  absl::Status PrepareStatus(const Prompt& prompt) {
    const PrepareRequest request{prompt, Neuron(), true};
    return evaluator_->Prepare({&request, 1}).status();
  }

  absl::Status ScoreStatus(const Prepared& parent, int first, const Prompt& tokens) {
    const Candidate candidate{&parent, first, tokens};
    return evaluator_->ScoreCandidates({&candidate, 1}).status();
  }

  std::unique_ptr<Model> model_;
  std::unique_ptr<Evaluator> evaluator_;
  std::shared_ptr<const AllowedTokens> allowed_;
  std::mt19937 random_{1};
};

// On the two parity checkpoints, Phi and Llama, in float64: what differs is more than rounding.
class EvaluatorTest : public EvaluatorTestBase, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { Load(GetParam(), "float64"); }
};

void ExpectNear(const Score& a, const Score& b, double tolerance = 1e-6) {
  EXPECT_NEAR(a.target, b.target, tolerance);
  if (std::isnan(b.cross_entropy)) {
    EXPECT_TRUE(std::isnan(a.cross_entropy));
  } else {
    EXPECT_NEAR(a.cross_entropy, b.cross_entropy, tolerance * b.cross_entropy);
  }
}

struct Packing {
  const char* name;
  const char* model;
  const char* dtype;
  double tolerance;
};

class PackedScoresTest : public EvaluatorTestBase, public ::testing::WithParamInterface<Packing> {
 protected:
  void SetUp() override { Load(GetParam().model, GetParam().dtype); }

  // Parents of several lengths and objectives, and many candidates of random ones of them.
  void DrawCandidates(int count) {
    std::vector<PrepareRequest> requests;
    for (const int length : {12, 1, 2, 12, 30, 7}) {
      const int layer = static_cast<int>(requests.size()) % 4;
      requests.push_back({RandomPrompt(length), Neuron(layer, 17 * layer), true});
    }
    parents_ = *evaluator_->Prepare(requests);
    for (int i = 0; i < count; ++i) {
      const Prepared& parent = *parents_[random_() % parents_.size()];
      const int first = static_cast<int>(random_() % parent.prompt().size());
      candidates_.push_back({&parent, first, RandomPrompt(1 + random_() % 20)});
    }
  }

  std::vector<std::shared_ptr<const Prepared>> parents_;
  std::vector<Candidate> candidates_;
};

TEST_P(PackedScoresTest, EqualThoseOfWholePrompts) {
  DrawCandidates(300);
  std::vector<PrepareRequest> whole;
  for (const Candidate& candidate : candidates_) {
    const Prompt& parent = candidate.parent->prompt();
    Prompt prompt(parent.begin(), parent.begin() + candidate.first_changed);
    prompt.insert(prompt.end(), candidate.tokens.begin(), candidate.tokens.end());
    whole.push_back({prompt, candidate.parent->target(), false});
  }
  const auto expected = evaluator_->Prepare(whole);
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const int max_rows : {1, 50, 100'000}) {
    const auto evaluator = Evaluator::Create(*model_, {.max_rows = max_rows});
    const auto packed = evaluator->ScoreCandidates(candidates_);
    ASSERT_TRUE(packed.ok()) << packed.status();
    ASSERT_EQ(packed->size(), candidates_.size());
    for (size_t i = 0; i < candidates_.size(); ++i) {
      ExpectNear((*packed)[i], (*expected)[i]->score(), GetParam().tolerance);
    }
    EXPECT_EQ(evaluator->counters().candidates, 300);
    EXPECT_LT(evaluator->counters().rows, evaluator->counters().exhaustive_rows);
    EXPECT_LT(evaluator->counters().head_rows, evaluator->counters().rows);
    EXPECT_EQ(evaluator->counters().prepared_prompts, 0);
  }
}

// So that a job's history does not depend on the jobs beside it.
TEST_P(PackedScoresTest, AreTheSameBitsInAnyCompany) {
  DrawCandidates(200);
  const auto together = evaluator_->ScoreCandidates(candidates_);
  ASSERT_TRUE(together.ok()) << together.status();
  int different = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    const auto alone = evaluator_->ScoreCandidates({&candidates_[i], 1});
    ASSERT_TRUE(alone.ok()) << alone.status();
    different += alone->front().target != (*together)[i].target ||
                 (alone->front().cross_entropy != (*together)[i].cross_entropy &&
                  !std::isnan(alone->front().cross_entropy));
  }
  EXPECT_EQ(different, 0);
}

INSTANTIATE_TEST_SUITE_P(Parity, PackedScoresTest,
                         ::testing::Values(Packing{"phi64", "phi-tiny", "float64", 1e-6},
                                           Packing{"llama64", "llama-tiny", "float64", 1e-6},
                                           Packing{"phi32", "phi-tiny", "float32", 1e-4},
                                           Packing{"llama32", "llama-tiny", "float32", 1e-4},
                                           Packing{"phi16", "phi-tiny", "float16", 0.02},
                                           Packing{"llama16", "llama-tiny", "bfloat16", 0.1}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(EvaluatorTest, PreparesAlikeTogetherAndAlone) {
  std::vector<PrepareRequest> requests;
  for (const int length : {5, 5, 12, 1, 200, 9, 200}) {
    requests.push_back({RandomPrompt(length), Neuron(length % 4, length % 100), length != 9});
  }
  const auto together = evaluator_->Prepare(requests);
  ASSERT_TRUE(together.ok()) << together.status();
  for (size_t i = 0; i < requests.size(); ++i) {
    const Prepared& one = *(*together)[i];
    EXPECT_EQ(one.prompt(), requests[i].prompt);
    EXPECT_EQ(one.target(), requests[i].target);
    EXPECT_EQ(one.has_gradients(), requests[i].gradients);
    const auto alone = Prepare(requests[i].prompt, requests[i].target);
    ExpectNear(one.score(), alone->score());
    EXPECT_EQ(one.next_token(), alone->next_token());
  }
  EXPECT_EQ(evaluator_->counters().prepared_prompts, 14);
}

TEST_P(EvaluatorTest, RanksSubstitutesAlikeTogetherAndAlone) {
  const auto a = Prepare(RandomPrompt(12), Neuron(1, 5)),
             b = Prepare(RandomPrompt(7), Neuron(3, 9));
  std::vector<SubstituteQuery> queries;
  for (int i = 0; i < 60; ++i) {
    const Prepared& parent = i % 3 == 0 ? *a : *b;
    queries.push_back({&parent, i % 2 == 0 ? 0.1F : 4.0F,
                       static_cast<int>(random_() % parent.prompt().size()),
                       static_cast<int>(random_() % 64), allowed_.get()});
  }
  const auto together = evaluator_->Substitutes(queries);
  ASSERT_TRUE(together.ok()) << together.status();
  for (size_t i = 0; i < queries.size(); ++i) {
    const auto alone = evaluator_->Substitutes({&queries[i], 1});
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_EQ((*together)[i], alone->front());
  }
}

// Ranks go through the allowed tokens, each once; leaving some out moves the others up.
TEST_P(EvaluatorTest, RanksAllowedTokensOnly) {
  const auto parent = Prepare(RandomPrompt(12), Neuron(2, 5));
  const auto ranking = [&](const AllowedTokens& allowed) {
    std::vector<SubstituteQuery> queries;
    for (int rank = 0; rank < static_cast<int>(allowed.ids.size()); ++rank) {
      queries.push_back({parent.get(), 1.0F, 4, rank, &allowed});
    }
    return *evaluator_->Substitutes(queries);
  };
  const std::vector<TokenId> all = ranking(*allowed_);
  EXPECT_EQ(std::set<TokenId>(all.begin(), all.end()).size(), 512U);
  std::vector<TokenId> ids;
  for (TokenId id = 1; id < 512; id += 3) ids.push_back(id);
  const auto third = AllowTokens(*model_, ids);
  std::vector<TokenId> expected = all;
  std::erase_if(expected, [&](TokenId id) { return third->mask[id] == 0; });
  EXPECT_EQ(ranking(*third), expected);
}

TEST_P(EvaluatorTest, TakesNothing) {
  EXPECT_TRUE(evaluator_->Prepare({})->empty());
  EXPECT_TRUE(evaluator_->Substitutes({})->empty());
  EXPECT_TRUE(evaluator_->ScoreCandidates({})->empty());
}

TEST_P(EvaluatorTest, RefusesBadInput) {
  const auto expect_bad = [](const absl::Status& status, const std::string& says) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  };
  expect_bad(PrepareStatus({}), "0 tokens");
  expect_bad(PrepareStatus(Prompt(257, 1)), "257 tokens");
  expect_bad(PrepareStatus({1, 512}), "512");
  expect_bad(PrepareStatus({-1}), "-1");
  expect_bad(Target::Create(*model_, NeuronObjective(99, 0)).status(), "neuron.layer");
  expect_bad(Target::Create(*model_, NeuronObjective(0, 256)).status(), "neuron.neuron");
  EXPECT_TRUE(PrepareStatus(Prompt(256, 1)).ok());

  const auto parent = Prepare({1, 2, 3}), longest = Prepare(Prompt(256, 1));
  expect_bad(ScoreStatus(*parent, 3, {1}), "position 3");
  expect_bad(ScoreStatus(*parent, -1, {1}), "position -1");
  expect_bad(ScoreStatus(*parent, 1, {}), "position 1");
  expect_bad(ScoreStatus(*parent, 0, {512}), "512");
  expect_bad(ScoreStatus(*parent, 0, {5, -7}), "-7");
  expect_bad(ScoreStatus(*parent, 1, Prompt(256, 1)), "257 tokens");
  expect_bad(ScoreStatus(*longest, 255, {1, 1}), "257 tokens");
  EXPECT_TRUE(ScoreStatus(*longest, 255, {2}).ok());
  EXPECT_TRUE(ScoreStatus(*parent, 1, Prompt(255, 1)).ok());

  const auto plain = Prepare({1, 2, 3}, Neuron(), /*gradients=*/false);
  const auto substitute = [&](const Prepared& of, int position, int rank) {
    const SubstituteQuery query{&of, 1.0F, position, rank, allowed_.get()};
    return evaluator_->Substitutes({&query, 1}).status();
  };
  EXPECT_TRUE(substitute(*parent, 2, 511).ok());
  expect_bad(substitute(*parent, 3, 0), "position 3");
  expect_bad(substitute(*parent, -1, 0), "position -1");
  expect_bad(substitute(*parent, 0, 512), "rank 512");
  expect_bad(substitute(*parent, 0, -1), "rank -1");
  expect_bad(substitute(*plain, 0, 0), "position 0");
}

// One bad request among good ones spoils nothing for the calls after it.
TEST_P(EvaluatorTest, ServesOnAfterAnError) {
  const auto parent = Prepare({1, 2, 3});
  const std::vector<Candidate> mixed = {{parent.get(), 0, {4}}, {parent.get(), 9, {4}}};
  EXPECT_FALSE(evaluator_->ScoreCandidates(mixed).ok());
  const auto good = evaluator_->ScoreCandidates(std::span(mixed).first(1));
  ASSERT_TRUE(good.ok()) << good.status();
  ExpectNear(good->front(), Prepare({4})->score());
}

// A result outlives the evaluator that made it.
TEST_P(EvaluatorTest, PreparedOutlivesTheEvaluator) {
  const auto parent = Prepare({1, 2, 3}, Neuron(1, 1));
  const Score score = parent->score();
  evaluator_ = Evaluator::Create(*model_, {});
  EXPECT_TRUE(ScoreStatus(*parent, 2, {3}).ok());
  ExpectNear(parent->score(), score);
}

INSTANTIATE_TEST_SUITE_P(
    Parity, EvaluatorTest, ::testing::Values("phi-tiny", "llama-tiny"), [](const auto& info) {
      return std::string(info.param).substr(0, std::string(info.param).find('-'));
    });

}  // namespace
}  // namespace epo
