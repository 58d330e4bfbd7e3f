// Multiplexes jobs on the one resident model, step by step.
#ifndef EPO_SERVER_SCHEDULER_H_
#define EPO_SERVER_SCHEDULER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/evaluate/evaluator.h"
#include "epo/v1/job.pb.h"
#include "server/convert.h"
#include "server/feed.h"
#include "server/metrics.h"
#include "server/store.h"

namespace epo {

class ModelCall;

struct SchedulerOptions {
  // Rows (tokens of the prompts to score) that a round may take together, unless a single job needs
  // more. A round is what a cancellation, a score call or a drain waits for.
  int round_rows = 8192;
  // Jobs whose searches are in memory; the others wait, see JobQueue. Each keeps its survivors' K/V
  // and log-probabilities on the device.
  int max_active_jobs = 64;
  // What the survivors of the active jobs may hold on the device together, as far as more than one
  // job is active.
  int64_t max_held_bytes = std::numeric_limits<int64_t>::max();
  // Score calls that may wait or be under way; more are refused.
  int max_score_calls = 64;
  // How long until a write that the store refused is tried again.
  absl::Duration store_retry = absl::Seconds(1);
  // So much of the device's time without a crash clears a job that was at work when a server died.
  absl::Duration probation = absl::Minutes(1);
  // Where rounds are counted; may be null. Must outlive the scheduler.
  Metrics* metrics = nullptr;
  // Told, on the model's thread, with what error the store has begun to refuse writes, and with OK
  // when it takes them again. May be empty.
  std::function<void(const absl::Status&)> store_writes;
};

// Owns the model's thread: the evaluator and every search live and die on it, and nothing else
// touches a tensor. A round advances some jobs by one step each; a step is persisted, and only then
// published. Between rounds jobs are admitted, cancelled, paused and ended at their deadlines, and
// score calls are served. A job that makes a round fail becomes FAILED without touching the others;
// a round for which the device's memory does not suffice is tried again with half of the rows.
// While the store refuses writes, what could not be persisted is kept, one step a job, and tried
// again; jobs with such a step wait. A job that was at work when a server died runs its steps alone
// until it has had some of the device's time, so that one that kills servers drags no other along.
//
// Thread-safe. Callbacks run on the model's thread and must return at once.
class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // A job that is in the store and has an open feed.
  struct Submission {
    v1::Job job;
    // Valid for the model, unless the job is of another one.
    SearchSpec spec;
    // What Run::Save() gave after its last step; empty for none.
    std::string checkpoint;
    // Whether the store has the job's row as it is here; it gets it, otherwise, as soon as it takes
    // it.
    bool stored = true;
    // Whether it had a place when the last server ended: then it is the next to get one.
    bool had_place = false;
  };
  // Queues the jobs, all before one of them begins; those that are PAUSED, or of another model, are
  // held.
  virtual void Submit(std::vector<Submission> submissions) = 0;
  void Submit(Submission submission) {
    std::vector<Submission> one;
    one.push_back(std::move(submission));
    Submit(std::move(one));
  }

  // Each changes a live job's state after its step under way; `done` gets the job once that is
  // persisted. NOT_FOUND when no such job is live, UNAVAILABLE when the scheduler stops first.
  using JobDone = std::function<void(absl::StatusOr<v1::Job>)>;
  // Ends the job as CANCELLED.
  virtual void Cancel(const std::string& id, JobDone done) = 0;
  // Holds the job as PAUSED: it keeps nothing on the device. FAILED_PRECONDITION when it is.
  virtual void Pause(const std::string& id, JobDone done) = 0;
  // Queues the job again. FAILED_PRECONDITION when it is not PAUSED.
  virtual void Resume(const std::string& id, JobDone done) = 0;

  // Ends all live jobs of the sweep as CANCELLED, those at work after their step under way; `done`
  // is told once all of that is persisted. UNAVAILABLE when the scheduler stops first.
  using SweepDone = std::function<void(absl::Status)>;
  virtual void CancelSweep(const std::string& id, SweepDone done) = 0;

  // Fills in what of a stored job only the scheduler knows: queue_position, estimated_start_time,
  // waits_for.
  virtual void Describe(v1::Job& job) const = 0;

  using ScoreDone = std::function<void(absl::StatusOr<std::vector<Score>>)>;
  // Scores prompts, in their order. `abandoned` tells whether anybody still waits.
  // RESOURCE_EXHAUSTED with RetryInfo when too many calls wait, UNAVAILABLE when the scheduler
  // stops first; `done` is called in these cases too, perhaps before this returns.
  virtual void ScorePrompts(ScoreSpec spec, std::function<bool()> abandoned, ScoreDone done) = 0;

  // Has the model's thread do the call between rounds. It is answered by the same errors; perhaps
  // before this returns.
  virtual void Take(std::unique_ptr<ModelCall> call) = 0;

  // Fills in what a step of `spec` costs: step_rows and, once there is a pace to judge by,
  // estimated_step_seconds.
  virtual void DescribeCost(const SearchSpec& spec, v1::Job& job) const = 0;

  // Returns once the evaluator is made: OK, or why it could not be. The scheduler is then as if
  // stopped.
  virtual absl::Status WaitUntilReady() = 0;

  // No round begins any more, and no job is to blame for what ends the process from now on. Takes
  // nothing but a write to the store; Stop() begins with it. Idempotent.
  virtual void StopRounds() = 0;
  // Finishes and persists the round under way, answers every waiting call and joins the thread.
  // False when the round takes longer than until `deadline`; it then still goes on. Idempotent.
  virtual bool Stop(absl::Time deadline = absl::InfiniteFuture()) = 0;
};

using EvaluatorFactory = std::function<std::unique_ptr<Evaluator>()>;

// Starts the model's thread; `make_evaluator` is called on it, and may throw. `converter`, `store`
// and `feeds` must outlive the scheduler.
std::unique_ptr<Scheduler> MakeScheduler(const Converter& converter, Store& store, JobFeeds& feeds,
                                         EvaluatorFactory make_evaluator,
                                         const SchedulerOptions& options);

}  // namespace epo

#endif  // EPO_SERVER_SCHEDULER_H_
