#include "core/search/redraw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/search/run.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

using ::testing::HasSubstr;

class RedrawTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = Model::Load(ParityModel("phi-tiny"), {"cpu", "float64"})->release();
  }
  static void TearDownTestSuite() { delete model_; }

  RedrawTest() : evaluator_(Evaluator::Create(*model_, {})) {}

  static Objective Neuron() { return NeuronObjective(2, 5); }

  static SearchOptions Options(const Constraints& constraints) {
    SearchOptions options;
    options.tokens = 8;
    options.population = 3;
    options.children_per_parent = 12;
    options.top_k = 40;
    options.iterations = 6;
    options.restart_period = 4;
    options.seed = 3;
    options.constraints = constraints;
    return options;
  }

  // From a text, with all that its tokens can be replaced by.
  static SearchOptions From(const std::string& text, const Constraints& constraints) {
    SearchOptions options = Options(constraints);
    options.initial_prompts = {Encode(text)};
    options.tokens = static_cast<int>(options.initial_prompts[0].size());
    FieldViolations none;
    options.top_k = static_cast<int>(
        Narrow(MakeAllowedTokens(*model_, false)->ids, constraints, model_->tokenizer(), none)
            .size());
    return options;
  }

  static Prompt Encode(const std::string& text) { return model_->tokenizer().Encode(text); }
  static std::string Decode(const Prompt& ids) { return model_->tokenizer().Decode(ids); }

  static std::unique_ptr<epo::Run> Make(const SearchOptions& options) {
    auto run = epo::Run::Create(*model_, Neuron(), options);
    EXPECT_TRUE(run.ok()) << run.status();
    return *std::move(run);
  }

  absl::StatusOr<std::vector<StepReport>> Advance(const std::vector<epo::Run*>& runs) {
    return AdvanceRound(*evaluator_, runs);
  }

  // The pools of a whole run.
  std::vector<std::vector<Prompt>> Pools(epo::Run& run) {
    std::vector<std::vector<Prompt>> pools;
    while (!run.done()) {
      const auto reports = Advance({&run});
      EXPECT_TRUE(reports.ok()) << reports.status();
      if (!reports.ok()) break;
      pools.push_back(reports->front().iteration.ids);
    }
    return pools;
  }

  // Runs to the end: every pool is full and every prompt in it good.
  void ExpectAll(const SearchOptions& options, const std::function<bool(const Prompt&)>& good) {
    const auto pools = Pools(*Make(options));
    EXPECT_EQ(std::ssize(pools), options.iterations);
    std::set<Prompt> distinct;
    for (const auto& pool : pools) {
      EXPECT_EQ(pool.size(), 3U * 13U);
      for (const Prompt& prompt : pool) {
        EXPECT_TRUE(good(prompt)) << Decode(prompt);
        distinct.insert(prompt);
      }
    }
    EXPECT_GT(distinct.size(), 3U) << "nothing was searched";
  }

  static const Model* model_;
  std::unique_ptr<Evaluator> evaluator_;
};

const Model* RedrawTest::model_ = nullptr;

TEST_F(RedrawTest, EveryChildIsReadAsItIs) {
  // In this vocabulary a random prompt hardly ever is.
  ExpectAll(Options({.retokenizable = true}),
            [&](const Prompt& prompt) { return Encode(Decode(prompt)) == prompt; });
}

TEST_F(RedrawTest, NoChildHoldsABannedText) {
  // Tokens with an "e" are not used at all; "a " is two tokens, and few draws make it.
  ExpectAll(Options({.decodable_only = true, .banned_texts = {"E", "a ", "O "}}),
            [&](const Prompt& prompt) {
              const std::string text = Decode(prompt);
              for (const char* banned : {"e", "E", "a ", "A ", "o ", "O "}) {
                if (text.find(banned) != std::string::npos) return false;
              }
              return true;
            });
}

TEST_F(RedrawTest, HuntsForWhatFewDrawsFind) {
  // Letters and digits, of which only "z" may stand beside an "a": of 36 draws one is good.
  Constraints constraints{.banned_token_regex = "^(?![a-z0-9]$)"};
  for (const char c : std::string("bcdefghijklmnopqrstuvwxy0123456789")) {
    constraints.banned_texts.push_back({'a', c});
    constraints.banned_texts.push_back({c, 'a'});
  }
  SearchOptions hard = Options(constraints);
  hard.initial_prompts = {Prompt(8, Encode("a")[0])};
  hard.top_k = 36;
  ASSERT_EQ(From("a", constraints).top_k, 36);
  ExpectAll(hard, [&](const Prompt& prompt) {
    const std::string text = Decode(prompt);
    return std::none_of(constraints.banned_texts.begin(), constraints.banned_texts.end(),
                        [&](const auto& t) { return text.find(t) != std::string::npos; });
  });
}

TEST_F(RedrawTest, FreezesPositions) {
  SearchOptions options = From("right of the copy use", {.retokenizable = true});
  options.constraints.frozen_positions = {0, 3};
  const Prompt start = options.initial_prompts[0];
  ASSERT_EQ(start.size(), 5U);
  std::vector<int> changed(5, 0);
  ExpectAll(options, [&](const Prompt& prompt) {
    for (int i = 0; i < 5; ++i) changed[i] += prompt[i] != start[i];
    return prompt[0] == start[0] && prompt[3] == start[3];
  });
  for (const int open : {1, 2, 4}) EXPECT_GT(changed[open], 0) << open;
}

TEST_F(RedrawTest, ContinuesFromSave) {
  const SearchOptions options =
      Options({.ascii_only = true, .banned_texts = {"e"}, .retokenizable = true});
  const auto whole = Pools(*Make(options));
  for (const int cut : {0, 2, 5}) {
    const auto before = Make(options);
    for (int i = 0; i < cut; ++i) ASSERT_TRUE(Advance({before.get()}).ok());
    const auto after = epo::Run::Restore(*model_, Neuron(), options, before->Save());
    ASSERT_TRUE(after.ok()) << after.status();
    const auto rest = Pools(**after);
    EXPECT_EQ(rest, std::vector(whole.begin() + cut, whole.end()));
    SearchOptions other = options;
    other.constraints.banned_texts = {"a"};
    EXPECT_EQ(epo::Run::Restore(*model_, Neuron(), other, before->Save()).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(RedrawTest, NoRunInfluencesAnother) {
  SearchOptions one = Options({.retokenizable = true});
  SearchOptions two = Options({.ascii_only = true, .banned_texts = {"1", "a b"}});
  const SearchOptions three = Options({});
  const auto alone_one = Pools(*Make(one));
  const auto alone_two = Pools(*Make(two));
  const auto alone_three = Pools(*Make(three));
  const auto a = Make(one), b = Make(two), c = Make(three);
  for (int i = 0; i < 6; ++i) {
    const auto reports = Advance({c.get(), a.get(), b.get()});
    ASSERT_TRUE(reports.ok()) << reports.status();
    EXPECT_EQ((*reports)[0].iteration.ids, alone_three[i]);
    EXPECT_EQ((*reports)[1].iteration.ids, alone_one[i]);
    EXPECT_EQ((*reports)[2].iteration.ids, alone_two[i]);
  }
}

TEST_F(RedrawTest, FailsWithTheConstraintThatAllowsNoChild) {
  // Of "x" and "z", and no two alike beside each other, there is no other prompt at one change.
  const auto stuck =
      Make(From("xzxz", {.banned_token_regex = "^(?![xz]$)", .banned_texts = {"yy", "xx", "zz"}}));
  const auto fine = Make(Options({.retokenizable = true}));
  const std::string before = fine->Save(), stuck_before = stuck->Save();
  const absl::Status status = Advance({fine.get(), stuck.get()}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("constraints.banned_texts[1] and constraints.banned_texts[2]: "),
                    HasSubstr("4 open positions"), HasSubstr("all of the 2 most promising")));
  // The round has advanced nobody, and the other goes on alone.
  EXPECT_TRUE(fine->Save() == before);
  EXPECT_TRUE(stuck->Save() == stuck_before);
  EXPECT_TRUE(Advance({fine.get()}).ok());
}

TEST_F(RedrawTest, FailsWhenThereIsNoFirstPrompt) {
  const auto run = epo::Run::Create(
      *model_, Neuron(), Options({.banned_token_regex = "^(?!a$)", .banned_texts = {"aA"}}));
  EXPECT_EQ(run.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(run.status().message()),
              AllOf(HasSubstr("constraints.banned_texts[0]: "), HasSubstr("among the 1 allowed")));
}

TEST_F(RedrawTest, GoesOnWhereNothingElseIsPromising) {
  // With one token left, children are their parents, for which no rule is to blame.
  SearchOptions options = From("aaaa", {.banned_token_regex = "^(?!a$)", .banned_texts = {"b"}});
  const auto pools = Pools(*Make(options));
  ASSERT_EQ(pools.size(), 6U);
  for (const Prompt& prompt : pools.back()) EXPECT_EQ(Decode(prompt), "aaaa");
}

}  // namespace
}  // namespace epo
