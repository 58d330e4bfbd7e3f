// Score calls that share the model's thread with the jobs.
#ifndef EPO_SERVER_SCORE_QUEUE_H_
#define EPO_SERVER_SCORE_QUEUE_H_

#include <deque>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/evaluate/evaluator.h"

namespace epo {

struct ScoreCall {
  std::vector<PrepareRequest> requests;
  // Whether nobody waits for the answer any more.
  std::function<bool()> abandoned;
  std::function<void(absl::StatusOr<std::vector<Score>>)> done;
  // Of the first requests.
  std::vector<Score> scores;
};

// Serves calls in turns of a few prompts, so that a long one holds up neither the jobs nor the
// short ones. Used on the model's thread.
class ScoreQueue {
 public:
  void Add(ScoreCall call) { calls_.push_back(std::move(call)); }
  bool empty() const { return calls_.empty(); }

  // Scores prompts of about `budget` tokens. Returns how many calls were answered.
  int Serve(Evaluator& evaluator, int budget);

  // Answers every call with `status`. Returns how many there were.
  int FailAll(const absl::Status& status);

 private:
  std::deque<ScoreCall> calls_;
};

}  // namespace epo

#endif  // EPO_SERVER_SCORE_QUEUE_H_
