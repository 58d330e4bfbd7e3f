#include "core/search/constraints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "core/search/prompt_rules.h"
#include "core/search/search.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// phi-tiny's tokenizer: the 256 bytes, then words and parts of words.
class ConstraintsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = Tokenizer::Load(ParityModel("phi-tiny") / "tokenizer.json")->release();
  }
  static void TearDownTestSuite() { delete tokenizer_; }

  static std::vector<TokenId> All() {
    std::vector<TokenId> ids(tokenizer_->vocab_size());
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
  }

  static Prompt Ids(const std::string& text) { return tokenizer_->Encode(text); }

  // The texts that are left, and, beside them, that exactly those are for which `keeps` holds.
  static std::set<std::string> Left(const Constraints& constraints,
                                    const std::function<bool(const std::string&)>& keeps) {
    FieldViolations violations;
    const std::vector<TokenId> left = Narrow(All(), constraints, *tokenizer_, violations);
    EXPECT_THAT(violations, IsEmpty());
    std::vector<TokenId> expected;
    std::set<std::string> texts;
    for (const TokenId id : All()) {
      const std::string bytes(tokenizer_->TokenBytes(id));
      if (!keeps(bytes)) continue;
      expected.push_back(id);
      texts.insert(bytes);
    }
    EXPECT_EQ(left, expected);
    return texts;
  }

  // "field: description" of each violation of options with these constraints.
  static std::vector<std::string> Check(const SearchOptions& options) {
    FieldViolations violations;
    const auto left = Narrow(All(), options.constraints, *tokenizer_, violations);
    for (FieldViolation& more : ValidateConstraints(options, *tokenizer_, left)) {
      violations.push_back(std::move(more));
    }
    std::vector<std::string> lines;
    for (const FieldViolation& violation : violations) {
      lines.push_back(violation.field + ": " + violation.description);
    }
    return lines;
  }

  static std::vector<std::string> Violations(const Constraints& constraints) {
    SearchOptions options;
    options.top_k = 1;
    options.constraints = constraints;
    return Check(options);
  }

  static SearchOptions From(const std::string& text, const Constraints& constraints) {
    SearchOptions options;
    options.initial_prompts = {Ids(text)};
    options.tokens = static_cast<int>(options.initial_prompts[0].size());
    options.top_k = 1;
    options.constraints = constraints;
    return options;
  }

  static const Tokenizer* tokenizer_;
};

const Tokenizer* ConstraintsTest::tokenizer_ = nullptr;

bool Ascii(const std::string& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= 0; });
}

TEST_F(ConstraintsTest, ForbidNothingWhenThereAreNone) {
  FieldViolations violations;
  EXPECT_EQ(Narrow(All(), {}, *tokenizer_, violations), All());
  EXPECT_THAT(violations, IsEmpty());
  EXPECT_THAT(Violations(Constraints()), IsEmpty());
  EXPECT_EQ(PromptRules::Create({}, *tokenizer_), nullptr);
  EXPECT_TRUE(Constraints().Affords(std::numeric_limits<float>::quiet_NaN()));
}

TEST_F(ConstraintsTest, TakeTokensOut) {
  EXPECT_TRUE(Left({.ascii_only = true}, Ascii).contains(" copy"));
  // In this vocabulary only bytes stand for parts of characters, and no token for a whole one.
  Left({.decodable_only = true}, Ascii);
  Left({.banned_ids = {0, 300, 300}}, [&](const std::string& bytes) {
    return bytes != tokenizer_->TokenBytes(0) && bytes != tokenizer_->TokenBytes(300);
  });
  // A part of a character is shown as U+FFFD.
  Left({.banned_token_regex = "^ |\\x{fffd}"},
       [](const std::string& bytes) { return bytes[0] != ' ' && Ascii(bytes); });
  const auto without = [](const std::string& text) {
    return [=](const std::string& bytes) { return bytes.find(text) == std::string::npos; };
  };
  EXPECT_FALSE(Left({.banned_texts = {"COPY"}}, without("copy")).contains(" copy"));
  Left({.ascii_only = true, .banned_ids = {300}, .banned_token_regex = "e", .banned_texts = {"n"}},
       [&](const std::string& bytes) {
         return Ascii(bytes) && bytes != tokenizer_->TokenBytes(300) &&
                bytes.find('e') == std::string::npos && bytes.find('n') == std::string::npos &&
                bytes.find('N') == std::string::npos;
       });
}

TEST_F(ConstraintsTest, NameTheFieldThatCannotBe) {
  EXPECT_THAT(Violations({.banned_token_regex = "a(b"}),
              ElementsAre("constraints.banned_token_regex: is no regular expression: missing "
                          "closing parenthesis, at byte 3"));
  EXPECT_THAT(Violations({.banned_token_regex = std::string(1001, 'a')}),
              ElementsAre("constraints.banned_token_regex: has 1001 bytes, but may have at most "
                          "1000"));
  EXPECT_THAT(Violations({.banned_token_regex = "((.+)*)*(x|\\x{0})$|^ +(?= [^ ]+$)"}),
              ElementsAre(HasSubstr("constraints.banned_token_regex: takes too many steps")));
  EXPECT_THAT(Violations({.banned_ids = {5, -1, 9999}}),
              ElementsAre("constraints.banned_ids[1]: is -1, which is no token",
                          "constraints.banned_ids[2]: is 9999, which is no token"));
  EXPECT_THAT(Violations({.banned_texts = {"fine", "", std::string(1001, 'a'), "\xff"}}),
              ElementsAre("constraints.banned_texts[1]: is empty; give the text, or leave it out",
                          "constraints.banned_texts[2]: has 1001 bytes, but may have at most 1000",
                          "constraints.banned_texts[3]: is not UTF-8"));
  EXPECT_THAT(Violations({.banned_texts = std::vector<std::string>(101, "zz")}),
              ElementsAre("constraints.banned_texts: holds 101 texts, but may hold at most 100"));
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(Violations({.max_cross_entropy = bad}),
                ElementsAre(HasSubstr("constraints.max_cross_entropy: is ")));
  }
}

TEST_F(ConstraintsTest, NameTheFieldThatLeavesNothing) {
  EXPECT_THAT(Violations({.banned_ids = All()}),
              ElementsAre("constraints.banned_ids: forbids each of the 512 tokens that are left to "
                          "it"));
  EXPECT_THAT(Violations({.banned_token_regex = ""}), IsEmpty());
  EXPECT_THAT(Violations({.ascii_only = true, .banned_token_regex = "^[\\x00-\\x7f]"}),
              ElementsAre(HasSubstr("constraints.banned_token_regex: forbids each of the ")));
  EXPECT_THAT(Violations({.banned_token_regex = "[^x]", .banned_texts = {"no", "X"}}),
              ElementsAre("constraints.banned_texts[1]: forbids each of the 1 tokens that are left "
                          "to it"));
}

TEST_F(ConstraintsTest, BoundTopK) {
  SearchOptions options;
  options.constraints.banned_token_regex = "[^x-z]";
  options.top_k = 4;
  EXPECT_THAT(Check(options),
              ElementsAre("top_k: is 4, but the constraints leave 3 tokens; give at most as many"));
  options.top_k = 3;
  EXPECT_THAT(Check(options), IsEmpty());
}

TEST_F(ConstraintsTest, MustSuitTheInitialPrompts) {
  EXPECT_THAT(Check(From("the copy", {.banned_texts = {"zz", "COPY"}})),
              ElementsAre(HasSubstr("constraints.banned_texts[1]")));
  EXPECT_THAT(Check(From("the", {.ascii_only = true})), IsEmpty());
  EXPECT_THAT(
      Check(From("the é", {.ascii_only = true})),
      ElementsAre(AllOf(HasSubstr("initial_prompts[0]: holds the id "), HasSubstr("at position "),
                        HasSubstr("constraints.ascii_only forbids"))));
  EXPECT_THAT(Check(From("the é", {.decodable_only = true})),
              ElementsAre(HasSubstr("constraints.decodable_only forbids")));
  EXPECT_THAT(Check(From("the", {.banned_ids = Ids("the")})),
              ElementsAre(HasSubstr("constraints.banned_ids forbids")));
  EXPECT_THAT(Check(From("the copy", {.banned_token_regex = "copy"})),
              ElementsAre(HasSubstr("constraints.banned_token_regex forbids")));
  // Across tokens.
  EXPECT_THAT(Check(From("the copy", {.banned_texts = {"E C"}})),
              ElementsAre(HasSubstr("initial_prompts[0]: breaks constraints.banned_texts[0] at "
                                    "positions 0 to 1")));
  SearchOptions options = From("the copy", {.retokenizable = true});
  EXPECT_THAT(Check(options), IsEmpty());
  options.initial_prompts = {{Ids("t")[0], Ids("h")[0]}};
  options.tokens = 2;
  EXPECT_THAT(Check(options),
              ElementsAre("initial_prompts[0]: breaks constraints.retokenizable at positions 0 to "
                          "1"));
}

TEST_F(ConstraintsTest, FreezePositionsOfInitialPrompts) {
  EXPECT_THAT(Violations({.frozen_positions = {0}}),
              ElementsAre("constraints.frozen_positions: needs the tokens that are frozen; give "
                          "them in initial_prompts"));
  SearchOptions options = From("the copy", {.frozen_positions = {0, 0}});
  ASSERT_EQ(options.tokens, 2);
  EXPECT_THAT(Check(options), IsEmpty());
  options.constraints.frozen_positions = {2, 0, -1};
  EXPECT_THAT(Check(options),
              ElementsAre("constraints.frozen_positions[0]: is 2, but must be from 0 to 1",
                          "constraints.frozen_positions[2]: is -1, but must be from 0 to 1"));
  options.constraints.frozen_positions = {1, 0};
  EXPECT_THAT(Check(options),
              ElementsAre("constraints.frozen_positions: freezes all of the 2 tokens; leave one to "
                          "search at"));
  options.constraints.frozen_positions = {1};
  options.population = 3;
  options.initial_prompts = {{1, 2}, {3, 2}, {1, 4}};
  EXPECT_THAT(
      Check(options),
      ElementsAre("initial_prompts[2]: has the id 4 at position 1, which "
                  "constraints.frozen_positions freezes, but initial_prompts[0] has 2; make "
                  "them equal there"));
  EXPECT_THAT(OpenPositions(options.constraints, 4), ElementsAre(0, 2, 3));
}

TEST_F(ConstraintsTest, RulesSeeWholePrompts) {
  const auto rules = PromptRules::Create(
      {.banned_texts = {"x y", "E C", "日"}, .retokenizable = true}, *tokenizer_);
  ASSERT_NE(rules, nullptr);
  EXPECT_FALSE(rules->Check(Ids("right of the use")));
  const Prompt prompt = Ids("right of the copy use");
  const auto breach = rules->Check(prompt);
  ASSERT_TRUE(breach);
  EXPECT_EQ(rules->FieldOf(breach->rule), "constraints.banned_texts[1]");
  // The tokens to blame, and no others.
  EXPECT_EQ(
      tokenizer_->Decode(Prompt(prompt.begin() + breach->first, prompt.begin() + breach->last)),
      " the copy");
  // A character of several tokens, and one beside a broken one.
  EXPECT_EQ(rules->FieldOf(rules->Check(Ids("in 日"))->rule), "constraints.banned_texts[2]");
  Prompt broken = Ids("日");
  broken.insert(broken.begin(), broken[0]);
  EXPECT_EQ(rules->FieldOf(rules->Check(broken)->rule), "constraints.banned_texts[2]");
  // "t", "h", "e" would be read as other tokens.
  const Prompt letters = {Ids("!")[0], Ids("t")[0], Ids("h")[0]};
  const auto retokenized = rules->Check(letters);
  ASSERT_TRUE(retokenized);
  EXPECT_EQ(rules->FieldOf(retokenized->rule), "constraints.retokenizable");
  EXPECT_EQ(retokenized->first, 1);
  EXPECT_EQ(retokenized->last, 3);
  EXPECT_TRUE(rules->Check({Ids("é")[0], Ids("t")[0]}));
}

TEST_F(ConstraintsTest, AffordUpToTheCeiling) {
  const Constraints constraints{.max_cross_entropy = 2.5};
  EXPECT_TRUE(constraints.Affords(2.5F));
  EXPECT_FALSE(constraints.Affords(std::nextafter(2.5F, 3.0F)));
  EXPECT_FALSE(constraints.Affords(std::numeric_limits<float>::quiet_NaN()));
}

}  // namespace
}  // namespace epo
