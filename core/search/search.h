// EPO itself as a state machine that owns no model: it asks for children to be scored and is told
// their scores.
#ifndef EPO_CORE_SEARCH_SEARCH_H_
#define EPO_CORE_SEARCH_SEARCH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/field_violation.h"
#include "core/base/types.h"
#include "core/evaluate/evaluator.h"
#include "core/model/allowed_tokens.h"
#include "core/model/model_config.h"
#include "core/search/constraints.h"
#include "core/search/frontier.h"
#include "core/search/prompt_rules.h"

namespace epo {

// The published defaults. The comments of epo.v1.JobSpec say what each field means.
struct SearchOptions {
  int tokens = 12;
  int population = 8;
  int children_per_parent = 32;
  int top_k = 512;
  double penalty_min = 0.1;
  double penalty_max = 10.0;
  int iterations = 300;
  // 0: never.
  int restart_period = 50;
  double restart_penalty_low = 2.0;
  double restart_penalty_high = 2.0;
  uint64_t seed = 0;
  // None, or at most one a slot; fewer are repeated in their order over the slots.
  std::vector<Prompt> initial_prompts;
  bool allow_special_tokens = false;
  Constraints constraints;
};

// Every field of `options` that is out of range for a model of this shape with `allowed` tokens;
// field names as in SearchOptions, which are the wire contract's ("initial_prompts[2]" for one of
// many, "restart_penalty.low"). Empty when all are good, but for the constraints: `allowed` is what
// there is without them, and ValidateConstraints() judges what they mean for the rest.
FieldViolations ValidateSearchOptions(const SearchOptions& options, const ModelConfig& config,
                                      const AllowedTokens& allowed);

// A child to make: the slot's parent with the token at `position` replaced by the one of gradient
// rank `rank`.
struct Mutation {
  int slot = 0;
  int position = 0;
  int rank = 0;
};

// A scored iteration: the pool (parents, one a slot, then children) and what each slot keeps of it.
struct Iteration {
  // From 0.
  int index = 0;
  std::vector<Prompt> ids;
  std::vector<Score> scores;
  // For each slot, an index into the pool.
  std::vector<int> keep;
  // The penalty that all slots chose by, when this iteration was a restart.
  std::optional<float> restart_penalty;
};

// The order of calls is Ask(), Tell(), Ask(), Tell(), ... until done(). Draws happen in the
// reference implementation's order from its generator, so equal options and scores give an equal
// run. Not thread-safe.
class Search {
 public:
  // `options` must be valid. `allowed` and `rules`, those of the options' constraints (none: null),
  // are shared with the caller. FAILED_PRECONDITION names the constraint when no first prompt that
  // keeps the rules was found.
  static absl::StatusOr<std::unique_ptr<Search>> Create(
      const SearchOptions& options, std::shared_ptr<const AllowedTokens> allowed,
      std::shared_ptr<const PromptRules> rules = nullptr);

  // Continues where Save() stood, bit for bit. INVALID_ARGUMENT when `blob` is not what Save()
  // wrote for these options.
  static absl::StatusOr<std::unique_ptr<Search>> Restore(
      const SearchOptions& options, std::shared_ptr<const AllowedTokens> allowed,
      std::string_view blob, std::shared_ptr<const PromptRules> rules = nullptr);

  virtual ~Search() = default;

  // Whether all iterations have run.
  virtual bool done() const = 0;
  // Iterations told so far.
  virtual int completed_iterations() const = 0;
  // Lambda of each slot, ascending, float32.
  virtual std::span<const float> penalties() const = 0;
  // The slots' prompts: the next iteration's parents, or the last survivors when done.
  virtual std::span<const Prompt> parents() const = 0;

  // Draws the next iteration's children. Child c comes from slot c mod M.
  virtual std::vector<Mutation> Ask() = 0;

  // What a child must keep to be told of; null: nothing.
  virtual const PromptRules* rules() const = 0;
  // Another child of `slot`, drawn for one that broke the rules. Between Ask() and Tell().
  virtual Mutation Redraw(int slot) = 0;
  // All positions that may change, in an order drawn for the occasion; and a number below `count`.
  virtual std::vector<int> DrawPositions() = 0;
  virtual int DrawBelow(int count) = 0;

  // `parent_scores`: one a slot; `children` and `child_scores`: one a mutation that Ask() returned,
  // in its order.
  virtual Iteration Tell(std::span<const Score> parent_scores, std::vector<Prompt> children,
                         std::span<const Score> child_scores) = 0;

  // One that draws the same from here on. Shares `allowed`.
  virtual std::unique_ptr<Search> Clone() const = 0;

  // The state between a Tell() and the next Ask(), as bytes with a format version; a few kilobytes.
  virtual std::string Save() const = 0;

  // The frontier of everything told so far.
  virtual std::vector<ScoredPrompt> frontier() const = 0;
};

}  // namespace epo

#endif  // EPO_CORE_SEARCH_SEARCH_H_
