#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/search/search.h"

namespace epo {
namespace {

// Bounds on what one job may ask of memory and of the store; far above any published setting.
constexpr int kMaxPopulation = 1024;
constexpr int kMaxPool = 1 << 16;
constexpr int kMaxIterations = 10'000'000;

class Checker {
 public:
  void Require(bool good, const std::string& field, const std::string& description) {
    if (!good) violations_.push_back({field, description});
  }

  void Range(int64_t value, int64_t low, int64_t high, const std::string& field) {
    Require(value >= low && value <= high, field,
            absl::StrCat("is ", value, ", but must be from ", low, " to ", high));
  }

  // Returns whether `value` is good.
  bool PositivePenalty(double value, const std::string& field) {
    const bool good = std::isfinite(value) && value > 0 &&
                      std::isfinite(static_cast<float>(value)) && static_cast<float>(value) > 0;
    Require(good, field, absl::StrCat("is ", value, ", but must be a positive float32 number"));
    return good;
  }

  FieldViolations Take() { return std::move(violations_); }

 private:
  FieldViolations violations_;
};

void CheckInitialPrompt(const Prompt& prompt, const std::string& field,
                        const SearchOptions& options, const AllowedTokens& allowed,
                        Checker& checker) {
  if (static_cast<int64_t>(prompt.size()) != options.tokens) {
    checker.Require(false, field,
                    absl::StrCat("has ", prompt.size(), " tokens, but tokens is ", options.tokens));
    return;
  }
  const auto& frozen = options.constraints.frozen_positions;
  for (size_t i = 0; i < prompt.size(); ++i) {
    // What is frozen is neither drawn nor proposed.
    if (std::find(frozen.begin(), frozen.end(), static_cast<int>(i)) != frozen.end()) continue;
    const TokenId id = prompt[i];
    const bool known = id >= 0 && id < static_cast<int64_t>(allowed.mask.size());
    if (known && allowed.mask[id]) continue;
    checker.Require(
        false, field,
        absl::StrCat("holds the id ", id,
                     known && !options.allow_special_tokens
                         ? ", which is a special token (see allow_special_tokens) or none"
                         : ", which is no token"));
    return;
  }
}

}  // namespace

FieldViolations ValidateSearchOptions(const SearchOptions& options, const ModelConfig& config,
                                      const AllowedTokens& allowed) {
  Checker checker;
  checker.Range(options.tokens, 2, config.context_length, "tokens");
  checker.Range(options.population, 1, kMaxPopulation, "population");
  checker.Range(options.children_per_parent, 1, kMaxPool, "children_per_parent");
  if (options.population >= 1 && options.population <= kMaxPopulation &&
      options.children_per_parent >= 1 && options.children_per_parent <= kMaxPool) {
    const int64_t children = int64_t{options.population} * options.children_per_parent;
    checker.Require(
        children <= kMaxPool, "children_per_parent",
        absl::StrCat("times population is ", children, ", but must be at most ", kMaxPool));
  }
  checker.Range(options.top_k, 1, static_cast<int64_t>(allowed.ids.size()), "top_k");
  const bool min_good = checker.PositivePenalty(options.penalty_min, "penalty_min");
  const bool max_good = checker.PositivePenalty(options.penalty_max, "penalty_max");
  if (min_good && max_good) {
    checker.Require(options.penalty_min <= options.penalty_max, "penalty_max",
                    absl::StrCat("is ", options.penalty_max, ", but must be at least penalty_min, ",
                                 options.penalty_min));
  }
  checker.Range(options.iterations, 1, kMaxIterations, "iterations");
  checker.Range(options.restart_period, 0, kMaxIterations, "restart_period");
  const auto restart_penalty = [&](double value, const std::string& field) {
    const bool good = std::isfinite(static_cast<float>(value)) && value >= 0;
    checker.Require(good, field,
                    absl::StrCat("is ", value, ", but must be a float32 number of at least 0"));
    return good;
  };
  const bool low_good = restart_penalty(options.restart_penalty_low, "restart_penalty.low");
  const bool high_good = restart_penalty(options.restart_penalty_high, "restart_penalty.high");
  if (low_good && high_good) {
    checker.Require(
        options.restart_penalty_low <= options.restart_penalty_high, "restart_penalty.high",
        absl::StrCat("is ", options.restart_penalty_high,
                     ", but must be at least restart_penalty.low, ", options.restart_penalty_low));
  }
  const size_t given = options.initial_prompts.size();
  checker.Require(given <= 1 || static_cast<int64_t>(given) <= options.population,
                  "initial_prompts",
                  absl::StrCat("holds ", given, " prompts, but may hold at most one a slot (",
                               options.population, ")"));
  for (size_t i = 0; i < given; ++i) {
    CheckInitialPrompt(options.initial_prompts[i], absl::StrCat("initial_prompts[", i, "]"),
                       options, allowed, checker);
  }
  return checker.Take();
}

}  // namespace epo
