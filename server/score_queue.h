// Score calls that share the model's thread with the jobs.
#ifndef EPO_SERVER_SCORE_QUEUE_H_
#define EPO_SERVER_SCORE_QUEUE_H_

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/evaluate/evaluator.h"
#include "core/evaluate/target.h"
#include "core/model/model.h"
#include "core/objective/objective.h"

namespace epo {

struct ScoreCall {
  // Valid for the model.
  Objective objective;
  std::vector<Prompt> prompts;
  // Whether nobody waits for the answer any more.
  std::function<bool()> abandoned;
  std::function<void(absl::StatusOr<std::vector<Score>>)> done;
  // Made at the first turn.
  std::shared_ptr<const Target> target = nullptr;
  // Of the first prompts.
  std::vector<Score> scores = {};
};

// Serves calls in turns of a few prompts, so that a long one holds up neither the jobs nor the
// short ones. Used on the model's thread.
class ScoreQueue {
 public:
  // `model` must outlive the queue.
  explicit ScoreQueue(const Model& model) : model_(model) {}

  void Add(ScoreCall call) { calls_.push_back(std::move(call)); }
  bool empty() const { return calls_.empty(); }

  // Scores prompts for about `budget` rows. Returns how many calls were answered.
  int Serve(Evaluator& evaluator, int budget);

  // Answers every call with `status`. Returns how many there were.
  int FailAll(const absl::Status& status);

 private:
  // Scores the call's next prompts.
  absl::Status Advance(Evaluator& evaluator, ScoreCall& call, int& budget);

  const Model& model_;
  std::deque<ScoreCall> calls_;
};

}  // namespace epo

#endif  // EPO_SERVER_SCORE_QUEUE_H_
