#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/search/search.h"

namespace epo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class SearchOptionsTest : public ::testing::Test {
 protected:
  SearchOptionsTest() {
    config_.context_length = 64;
    config_.vocab_size = 1000;
    // 900 tokens, of which 7 is a special one that is not allowed; rows without a token after them.
    allowed_.mask.assign(1000, 0);
    for (TokenId id = 0; id < 900; ++id) {
      if (id == 7) continue;
      allowed_.ids.push_back(id);
      allowed_.mask[id] = 1;
    }
  }

  FieldViolations Validate(const std::function<void(SearchOptions&)>& change) const {
    SearchOptions options;
    change(options);
    return ValidateSearchOptions(options, config_, allowed_);
  }

  std::vector<std::string> BadFields(const std::function<void(SearchOptions&)>& change) const {
    std::vector<std::string> fields;
    for (const FieldViolation& violation : Validate(change)) fields.push_back(violation.field);
    return fields;
  }

  ModelConfig config_;
  AllowedTokens allowed_;
};

TEST_F(SearchOptionsTest, TakesPublishedDefaults) {
  const SearchOptions options;
  EXPECT_EQ(options.tokens, 12);
  EXPECT_EQ(options.population, 8);
  EXPECT_EQ(options.children_per_parent, 32);
  EXPECT_EQ(options.top_k, 512);
  EXPECT_EQ(options.penalty_min, 0.1);
  EXPECT_EQ(options.penalty_max, 10.0);
  EXPECT_EQ(options.iterations, 300);
  EXPECT_EQ(options.restart_period, 50);
  EXPECT_EQ(options.restart_penalty_low, 2.0);
  EXPECT_EQ(options.restart_penalty_high, 2.0);
  EXPECT_FALSE(options.allow_special_tokens);
  EXPECT_TRUE(ValidateSearchOptions(options, config_, allowed_).empty());
}

TEST_F(SearchOptionsTest, TakesTheLimits) {
  const std::vector<std::function<void(SearchOptions&)>> good = {
      [](auto& o) { o.tokens = 2; },
      [](auto& o) { o.tokens = 64; },
      [](auto& o) { o.population = 1; },
      [](auto& o) { o.population = 1024; },
      [](auto& o) { o.children_per_parent = 1; },
      [](auto& o) { o.children_per_parent = 8192; },
      [](auto& o) { o.top_k = 1; },
      [](auto& o) { o.top_k = 899; },
      [](auto& o) { o.penalty_min = o.penalty_max = 3.0; },
      [](auto& o) { o.penalty_min = 1e-30; },
      [](auto& o) { o.iterations = 1; },
      [](auto& o) { o.restart_period = 0; },
      [](auto& o) { o.restart_penalty_low = 0; },
      [](auto& o) { o.restart_penalty_high = 6; },
      [](auto& o) { o.seed = UINT64_MAX; },
      [](auto& o) { o.initial_prompts = {Prompt(12, 899)}; },
      [](auto& o) { o.initial_prompts = std::vector<Prompt>(8, Prompt(12, 0)); },
  };
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_THAT(BadFields(good[i]), ElementsAre()) << "case " << i;
  }
}

TEST_F(SearchOptionsTest, NamesEachBadField) {
  struct Case {
    std::string field;
    std::function<void(SearchOptions&)> change;
    std::string says;
  };
  const std::vector<Case> cases = {
      {"tokens", [](auto& o) { o.tokens = 1; }, "is 1, but must be from 2 to 64"},
      {"tokens", [](auto& o) { o.tokens = 65; }, "is 65"},
      {"tokens", [](auto& o) { o.tokens = INT_MIN; }, "from 2 to 64"},
      {"population", [](auto& o) { o.population = 0; }, "is 0"},
      {"population", [](auto& o) { o.population = 1025; }, "is 1025"},
      {"population", [](auto& o) { o.population = INT_MAX; }, "is 2147483647"},
      {"children_per_parent", [](auto& o) { o.children_per_parent = 0; }, "is 0"},
      {"children_per_parent", [](auto& o) { o.children_per_parent = INT_MAX; }, "is 2147483647"},
      {"children_per_parent", [](auto& o) { o.children_per_parent = 8193; }, "population"},
      {"top_k", [](auto& o) { o.top_k = 0; }, "is 0"},
      {"top_k", [](auto& o) { o.top_k = 900; }, "is 900, but must be from 1 to 899"},
      {"penalty_min", [](auto& o) { o.penalty_min = 0; }, "is 0"},
      {"penalty_min", [](auto& o) { o.penalty_min = -1; }, "is -1"},
      {"penalty_min", [](auto& o) { o.penalty_min = kNaN; }, "is nan"},
      {"penalty_min", [](auto& o) { o.penalty_min = 1e-60; }, "float32"},
      {"penalty_max", [](auto& o) { o.penalty_max = kNaN; }, "is nan"},
      {"penalty_max", [](auto& o) { o.penalty_max = kInfinity; }, "is inf"},
      {"penalty_max", [](auto& o) { o.penalty_max = 1e39; }, "float32"},
      {"penalty_max", [](auto& o) { o.penalty_max = 0.05; }, "at least penalty_min"},
      {"iterations", [](auto& o) { o.iterations = 0; }, "is 0"},
      {"iterations", [](auto& o) { o.iterations = INT_MAX; }, "is 2147483647"},
      {"restart_period", [](auto& o) { o.restart_period = -1; }, "is -1"},
      {"restart_penalty.low", [](auto& o) { o.restart_penalty_low = -0.5; }, "is -0.5"},
      {"restart_penalty.low", [](auto& o) { o.restart_penalty_low = kNaN; }, "is nan"},
      {"restart_penalty.high", [](auto& o) { o.restart_penalty_high = kInfinity; }, "is inf"},
      {"restart_penalty.high", [](auto& o) { o.restart_penalty_high = 1e39; }, "float32"},
      {"restart_penalty.high", [](auto& o) { o.restart_penalty_high = 1.5; },
       "at least restart_penalty.low"},
      {"initial_prompts",
       [](auto& o) { o.initial_prompts.assign(o.population + 1, Prompt(12, 1)); },
       "holds 9 prompts, but may hold at most one a slot (8)"},
      {"initial_prompts[0]", [](auto& o) { o.initial_prompts = {Prompt(11, 1)}; },
       "has 11 tokens, but tokens is 12"},
      {"initial_prompts[0]", [](auto& o) { o.initial_prompts = {Prompt()}; }, "has 0 tokens"},
      {"initial_prompts[0]", [](auto& o) { o.initial_prompts = {Prompt(12, -1)}; }, "id -1"},
      {"initial_prompts[0]", [](auto& o) { o.initial_prompts = {Prompt(12, 1000)}; }, "id 1000"},
      {"initial_prompts[0]", [](auto& o) { o.initial_prompts = {Prompt(12, 900)}; }, "id 900"},
      {"initial_prompts[0]", [](auto& o) { o.initial_prompts = {Prompt(12, 7)}; },
       "allow_special_tokens"},
      {"initial_prompts[6]",
       [](auto& o) {
         o.initial_prompts.assign(8, Prompt(12, 1));
         o.initial_prompts[6][11] = 7;
       },
       "id 7"},
  };
  for (const Case& c : cases) {
    const FieldViolations bad = Validate(c.change);
    ASSERT_EQ(bad.size(), 1U) << c.field << ' ' << c.says;
    EXPECT_EQ(bad[0].field, c.field);
    EXPECT_THAT(bad[0].description, HasSubstr(c.says));
  }
}

TEST_F(SearchOptionsTest, NamesSeveralBadFieldsAtOnce) {
  const auto fields = BadFields([](SearchOptions& o) {
    o.tokens = 0;
    o.population = -3;
    o.children_per_parent = -1;
    o.top_k = 5000;
    o.penalty_min = kNaN;
    o.penalty_max = -1;
    o.iterations = -1;
    o.restart_period = -1;
    o.restart_penalty_low = kNaN;
    o.restart_penalty_high = -1;
    o.initial_prompts = {Prompt(12, 1)};
  });
  EXPECT_THAT(fields, UnorderedElementsAre("tokens", "population", "children_per_parent", "top_k",
                                           "penalty_min", "penalty_max", "iterations",
                                           "restart_period", "restart_penalty.low",
                                           "restart_penalty.high", "initial_prompts[0]"));
}

}  // namespace
}  // namespace epo
