// A search together with what the model has prepared for it, and the step that advances many of
// them in one round.
#ifndef EPO_CORE_SEARCH_RUN_H_
#define EPO_CORE_SEARCH_RUN_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/evaluate/evaluator.h"
#include "core/objective/objective.h"
#include "core/search/search.h"

namespace epo {

// A slot's survivor after a step.
struct SlotReport {
  float penalty = 0;
  Prompt ids;
  Score score;
  // What the model predicts after the survivor.
  TokenId next_token = 0;
};

struct StepReport {
  Iteration iteration;
  // One a slot.
  std::vector<SlotReport> slots;
  // The penalty-frontier of the history so far, sorted by cross-entropy.
  std::vector<ScoredPrompt> frontier;
  // What each term of the objective is divided by.
  std::vector<double> term_scales;
};

// One job's search. Used only on the evaluator's thread.
class Run {
 public:
  // `options` must be valid for `model`, and `objective` for it and `options.tokens`. Errors are
  // Target::Create's and Search::Create's.
  static absl::StatusOr<std::unique_ptr<Run>> Create(const Model& model, const Objective& objective,
                                                     const SearchOptions& options);
  // Continues from Save(). INVALID_ARGUMENT for a blob that is not of this run; Target::Create's
  // errors.
  static absl::StatusOr<std::unique_ptr<Run>> Restore(const Model& model,
                                                      const Objective& objective,
                                                      const SearchOptions& options,
                                                      std::string_view blob);
  ~Run();

  bool done() const;
  int completed_iterations() const;
  // Prompts that one step scores, parents included: its cost to a scheduler.
  int evaluations_per_step() const;
  // Bytes of the device's memory that its survivors hold between steps; 0 before the first step.
  int64_t device_bytes() const;
  // Gives that memory back; the next step prepares the survivors again.
  void Release();
  // A few kilobytes; valid between steps.
  std::string Save() const;

 private:
  friend absl::StatusOr<std::vector<StepReport>> AdvanceRound(Evaluator& evaluator,
                                                              std::span<Run* const> runs);
  struct State;
  explicit Run(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Advances each of `runs`, none of them done, by one step, all in one pass over the model:
// substitutes, candidates, then the survivors. Results in the order of `runs`. An error is of the
// whole round; no run has then advanced. It is the device's, or FAILED_PRECONDITION when one of the
// runs has no child that its constraints allow.
absl::StatusOr<std::vector<StepReport>> AdvanceRound(Evaluator& evaluator,
                                                     std::span<Run* const> runs);

}  // namespace epo

#endif  // EPO_CORE_SEARCH_RUN_H_
