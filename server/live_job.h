// A job on the model's thread, and how what it did gets into the store and to its watchers.
#ifndef EPO_SERVER_LIVE_JOB_H_
#define EPO_SERVER_LIVE_JOB_H_

#include <spdlog/common.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/search/run.h"
#include "epo/v1/job.pb.h"
#include "server/convert.h"
#include "server/fair_share.h"
#include "server/feed.h"
#include "server/frontier_history.h"
#include "server/log.h"
#include "server/store.h"

namespace epo {

using JobDone = std::function<void(absl::StatusOr<v1::Job>)>;

// A job that has not ended, or whose end is not persisted yet.
struct LiveJob {
  v1::Job job;
  SearchSpec spec;
  // What Run::Save() gave; empty before the first step and while there is a run.
  std::string checkpoint;
  // Null while the job waits for its admission or is paused, and once it has ended.
  std::unique_ptr<Run> run;
  // Used where only frontiers are kept.
  FrontierHistory frontier_history;
  Share share;
  absl::Time deadline = absl::InfiniteFuture();
  // Of the call that created the job; empty after a restart.
  std::string traceparent;
  // This server cannot run it: it is kept for one that can.
  bool held = false;
  // Its attempt in this process has begun.
  bool attempted = false;
  // Its run_seconds when this process took it.
  double run_seconds_before = 0;
  // What the store has not taken yet, in this order. A job with any of these makes no further step.
  std::optional<StepRecord> unsaved_step;
  std::optional<v1::Job> unsaved_state;
  // Those who asked for a change of the job's state; they get the job once that is persisted.
  std::vector<JobDone> waiters;
  // Its end is persisted and published.
  bool gone = false;

  LogFields log_fields() const { return {job.id(), job.client(), traceparent}; }
  bool unsaved() const { return unsaved_step.has_value() || unsaved_state.has_value(); }
  // It was at work when a server died.
  bool suspect() const { return job.crashes() > 0; }
  bool runnable() const { return run != nullptr && !unsaved() && !gone; }
  // Rows of the iterations that are left.
  double rows_left() const {
    return static_cast<double>(spec.options.iterations - job.completed_iterations()) * share.cost;
  }
  // Gives back what the job holds on the device; it continues from the checkpoint.
  void Unload() {
    if (run == nullptr) return;
    checkpoint = run->Save();
    run.reset();
  }
};

// Persists what jobs did and then, only then, publishes it. What the store refuses stays with the
// job until Save() is called again. Used on the model's thread, but for Close().
class JobLedger {
 public:
  // Is told with what error the store has begun to refuse writes; OK: it takes them again.
  using StoreWrites = std::function<void(const absl::Status&)>;

  // All of it must outlive the ledger. `retry`: how long to wait after a refusal. `probation`: so
  // much of the device's time in this process clears a job of its crashes. `store_writes` may be
  // empty.
  JobLedger(const Converter& converter, Store& store, JobFeeds& feeds, absl::Duration retry,
            absl::Duration probation, StoreWrites store_writes)
      : converter_(converter),
        store_(store),
        feeds_(feeds),
        retry_(retry),
        probation_(probation),
        store_writes_(std::move(store_writes)) {}

  // A step of each of the jobs, which are QUEUED or RUNNING, is about to run: notes so in the
  // store. On an error none may run; it can be tried again at next_try(). CANCELLED once closed.
  absl::Status Begin(const std::vector<LiveJob*>& round) ABSL_LOCKS_EXCLUDED(round_mutex_);

  // No step is about to run.
  void Rest() ABSL_LOCKS_EXCLUDED(round_mutex_);

  // No step begins any more, and nobody is to blame for what ends the process, also while one is
  // still under way. On any thread; waits for a write of Begin() or Rest() at most.
  void Close() ABSL_LOCKS_EXCLUDED(round_mutex_);

  // `live.run` has made a step: of a round that took `round_seconds`, of which `run_seconds` are
  // the job's own share.
  void Record(LiveJob& live, const StepReport& report, double round_seconds, double run_seconds);

  // The job ends with what it has. An error is kept with it.
  void End(LiveJob& live, v1::Job::State state, const absl::Status& error);

  // The same for many jobs, in one write and without a line in the log for each.
  void EndAll(const std::vector<LiveJob*>& jobs, v1::Job::State state);

  // The job, which has not ended, is QUEUED or PAUSED from now on; it has no run any more.
  void Park(LiveJob& live, v1::Job::State state);

  // Tries to persist and publish what is pending of a job; sets `gone` once that includes its end.
  void Save(LiveJob& live);

  // When to try again after the last refusal.
  absl::Time next_try() const { return next_try_; }

 private:
  void Announce(LiveJob& live, spdlog::level::level_enum level = spdlog::level::info);
  void Answer(LiveJob& live);
  void ClearNote() ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);
  // `writer`: a job's id, or kRound.
  void Refused(const std::string& writer, const absl::Status& status);
  void Accepted(const std::string& writer);

  const Converter& converter_;
  Store& store_;
  JobFeeds& feeds_;
  const absl::Duration retry_;
  const absl::Duration probation_;
  absl::Time next_try_ = absl::InfinitePast();
  const StoreWrites store_writes_;
  // Those whose last write was refused.
  absl::flat_hash_set<std::string> refused_;

  absl::Mutex round_mutex_;
  // The jobs that the store has for those at work; nothing where a write failed that may have been
  // made all the same.
  std::optional<std::vector<std::string>> noted_ ABSL_GUARDED_BY(round_mutex_) =
      std::vector<std::string>();
  bool closed_ ABSL_GUARDED_BY(round_mutex_) = false;
};

}  // namespace epo

#endif  // EPO_SERVER_LIVE_JOB_H_
