// Calls that share the model's thread with the jobs.
#ifndef EPO_SERVER_MODEL_CALLS_H_
#define EPO_SERVER_MODEL_CALLS_H_

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/attribute/attribute.h"
#include "core/evaluate/evaluator.h"
#include "core/model/allowed_tokens.h"
#include "core/model/model.h"
#include "server/convert.h"

namespace epo {

// Work of one caller, in turns. Used on the model's thread.
class ModelCall {
 public:
  virtual ~ModelCall() = default;
  // Takes a turn and the rows that it cost from `budget`. True when the work is done and answered;
  // an error ends it.
  virtual absl::StatusOr<bool> Advance(Evaluator& evaluator, int& budget) = 0;
  // Whether nobody waits for the answer any more.
  virtual bool abandoned() const = 0;
  // The answer, if it is an error; called once, in the place of further turns.
  virtual void Fail(const absl::Status& status) = 0;
};

// Scores of `spec.prompts`, in their order; given to `done` all together. `model` must outlive it.
std::unique_ptr<ModelCall> MakeScoreCall(
    const Model& model, ScoreSpec spec, std::function<bool()> abandoned,
    std::function<void(absl::StatusOr<std::vector<Score>>)> done);

// Who gets an attribution as it is made. Called on the model's thread, and must not wait.
class AttributionSink {
 public:
  virtual ~AttributionSink() = default;
  virtual bool abandoned() const = 0;
  // The prompt's own score; first.
  virtual void Begin(Score score) = 0;
  // What stands at `position`, from 0 to the last one in order.
  virtual void Add(int position, std::vector<Substitute> substitutes) = 0;
  // Nothing more comes.
  virtual void End(const absl::Status& status) = 0;
};

// Attribution of the one prompt of `spec`, by `count` substitutes a token out of `allowed`. `model`
// must outlive it.
std::unique_ptr<ModelCall> MakeAttributeCall(const Model& model, ScoreSpec spec, int count,
                                             std::shared_ptr<const AllowedTokens> allowed,
                                             std::shared_ptr<AttributionSink> sink);

// Serves calls in turns, so that a long one holds up neither the jobs nor the short ones. Used on
// the model's thread.
class ModelCalls {
 public:
  void Add(std::unique_ptr<ModelCall> call) { calls_.push_back(std::move(call)); }
  bool empty() const { return calls_.empty(); }

  // Works for about `budget` rows. Returns how many calls were answered.
  int Serve(Evaluator& evaluator, int budget);

  // Answers every call with `status`. Returns how many there were.
  int FailAll(const absl::Status& status);

 private:
  std::deque<std::unique_ptr<ModelCall>> calls_;
};

}  // namespace epo

#endif  // EPO_SERVER_MODEL_CALLS_H_
