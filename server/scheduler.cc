#include "server/scheduler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/clock.h"
#include "server/fair_share.h"
#include "server/job_state.h"
#include "server/score_queue.h"
#include "server/status.h"

namespace epo {
namespace {

using CancelDone = std::function<void(absl::StatusOr<v1::Job>)>;

// A job that has not ended, or whose end is not persisted yet.
struct LiveJob {
  v1::Job job;
  SearchSpec spec;
  std::string checkpoint;
  // Null while the job waits for its admission.
  std::unique_ptr<Run> run;
  Share share;
  // What the store has not taken yet, in this order. A job with any of these makes no further step.
  std::optional<StepRecord> unsaved_step;
  std::optional<v1::Job> unsaved_end;
  // Those who asked for the job's cancellation.
  std::vector<CancelDone> cancels;
  // Its end is persisted and published.
  bool gone = false;

  bool unsaved() const { return unsaved_step.has_value() || unsaved_end.has_value(); }
  bool runnable() const { return run != nullptr && !unsaved() && !gone; }
};

// What the world asked for since the model's thread last looked.
struct Inbox {
  std::vector<std::unique_ptr<LiveJob>> submitted;
  std::vector<std::pair<std::string, CancelDone>> cancels;
  std::vector<ScoreCall> scores;
  bool stop = false;

  bool empty() const { return submitted.empty() && cancels.empty() && scores.empty() && !stop; }
};

class SchedulerImpl final : public Scheduler {
 public:
  SchedulerImpl(const Converter& converter, Store& store, JobFeeds& feeds,
                EvaluatorFactory make_evaluator, const SchedulerOptions& options)
      : converter_(converter),
        store_(store),
        feeds_(feeds),
        make_evaluator_(std::move(make_evaluator)),
        options_(options),
        thread_([this] { RunThread(); }) {}

  ~SchedulerImpl() override { Stop(); }

  void Submit(v1::Job job, SearchSpec spec, std::string checkpoint) override {
    auto live = std::make_unique<LiveJob>();
    live->job = std::move(job);
    live->spec = std::move(spec);
    live->checkpoint = std::move(checkpoint);
    absl::MutexLock lock(&mutex_);
    // A job that comes too late is in the store, from where the next server continues it.
    if (!inbox_.stop) inbox_.submitted.push_back(std::move(live));
  }

  void Cancel(const std::string& id, CancelDone done) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!inbox_.stop) {
        inbox_.cancels.emplace_back(id, std::move(done));
        return;
      }
    }
    done(ShuttingDown());
  }

  void ScorePrompts(std::vector<PrepareRequest> requests, std::function<bool()> abandoned,
                    ScoreDone done) override {
    absl::Status refused;
    {
      absl::MutexLock lock(&mutex_);
      if (inbox_.stop) {
        refused = ShuttingDown();
      } else if (score_calls_ >= options_.max_score_calls) {
        refused = WithRetry(
            MakeError(absl::StatusCode::kResourceExhausted,
                      "too many score calls are waiting; try again later", "SCORE_QUEUE_FULL"),
            absl::Seconds(1));
      } else {
        ++score_calls_;
        inbox_.scores.push_back(
            {std::move(requests), std::move(abandoned), std::move(done), /*scores=*/{}});
        return;
      }
    }
    done(refused);
  }

  void Stop() override {
    {
      absl::MutexLock lock(&mutex_);
      inbox_.stop = true;
    }
    absl::MutexLock lock(&join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

 private:
  // Everything below runs on the model's thread.

  void RunThread() {
    evaluator_ = make_evaluator_();
    while (true) {
      Inbox inbox = TakeInbox();
      const bool stop = inbox.stop;
      for (auto& job : inbox.submitted) waiting_.push_back(std::move(job));
      for (auto& [id, done] : inbox.cancels) CancelNow(id, std::move(done));
      for (ScoreCall& call : inbox.scores) scores_.Add(std::move(call));
      SaveAgain(/*force=*/stop);
      if (stop) break;
      ForgetGone();
      Admit();
      ReleaseScores(scores_.Serve(*evaluator_, options_.round_rows));
      RunRound();
      ForgetGone();
    }
    ReleaseScores(scores_.FailAll(ShuttingDown()));
    for (auto* jobs : {&active_, &waiting_}) {
      for (auto& live : *jobs) {
        if (live->unsaved()) {
          spdlog::error("job {} stops with its last step not persisted; the step will be run again",
                        live->job.id());
        }
        for (CancelDone& done : live->cancels) done(ShuttingDown());
      }
      jobs->clear();
    }
    evaluator_.reset();
  }

  // Waits until there is something to do.
  Inbox TakeInbox() {
    absl::Time deadline = absl::InfiniteFuture();
    if (!scores_.empty()) deadline = absl::InfinitePast();
    for (const auto* jobs : {&active_, &waiting_}) {
      for (const auto& live : *jobs) {
        if (live->runnable()) deadline = absl::InfinitePast();
        if (live->unsaved()) deadline = std::min(deadline, next_save_);
      }
    }
    if (static_cast<int>(active_.size()) < options_.max_active_jobs && !waiting_.empty()) {
      deadline = absl::InfinitePast();
    }
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithDeadline(absl::Condition(this, &SchedulerImpl::HasMail), deadline);
    Inbox inbox;
    std::swap(inbox, inbox_);
    inbox_.stop = inbox.stop;
    return inbox;
  }

  bool HasMail() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !inbox_.empty(); }

  void ReleaseScores(int count) {
    absl::MutexLock lock(&mutex_);
    score_calls_ -= count;
  }

  void CancelNow(const std::string& id, CancelDone done) {
    for (auto* jobs : {&active_, &waiting_}) {
      for (auto& live : *jobs) {
        if (live->job.id() != id || live->gone) continue;
        live->cancels.push_back(std::move(done));
        if (!IsTerminal(live->job.state())) End(*live, v1::Job::CANCELLED, absl::OkStatus());
        return;
      }
    }
    done(JobNotFound(id));
  }

  // Moves waiting jobs into memory as far as there is room.
  void Admit() {
    while (static_cast<int>(active_.size()) < options_.max_active_jobs && !waiting_.empty()) {
      std::unique_ptr<LiveJob> live = std::move(waiting_.front());
      waiting_.pop_front();
      if (live->gone) continue;
      active_.push_back(std::move(live));
      LiveJob& job = *active_.back();
      // Cancelled before its turn, and the store has yet to take it.
      if (job.unsaved()) continue;
      if (absl::Status made = MakeRun(job); !made.ok()) {
        End(job, v1::Job::FAILED, made);
        continue;
      }
      job.share.virtual_time = JoinTime(Shares(&job));
      job.share.cost = job.run->evaluations_per_step() * job.spec.options.tokens;
    }
  }

  absl::Status MakeRun(LiveJob& live) {
    const Model& model = converter_.model();
    if (live.checkpoint.empty()) {
      live.run = Run::Create(model, live.spec.objective, live.spec.options);
      return absl::OkStatus();
    }
    auto run = Run::Restore(model, live.spec.objective, live.spec.options, live.checkpoint);
    live.checkpoint.clear();
    if (!run.ok()) return run.status();
    live.run = *std::move(run);
    return absl::OkStatus();
  }

  std::vector<Share> Shares(const LiveJob* without = nullptr) const {
    std::vector<Share> shares;
    for (const auto& live : active_) {
      if (live.get() != without && live->runnable()) shares.push_back(live->share);
    }
    return shares;
  }

  void RunRound() {
    std::vector<LiveJob*> runnable;
    std::vector<Share> shares;
    for (const auto& live : active_) {
      if (!live->runnable()) continue;
      runnable.push_back(live.get());
      shares.push_back(live->share);
    }
    std::vector<LiveJob*> round;
    for (size_t i : PickRound(shares, options_.round_rows)) round.push_back(runnable[i]);
    if (round.empty()) return;
    for (LiveJob* live : round) {
      live->share.Charge();
      if (live->job.state() == v1::Job::QUEUED) MarkRunning(*live);
    }
    const absl::Status status = Advance(round);
    if (status.ok()) return;
    if (round.size() == 1) return End(*round[0], v1::Job::FAILED, status);
    spdlog::warn("a round of {} jobs failed, running each alone: {}", round.size(),
                 Describe(status));
    for (LiveJob* live : round) {
      if (absl::Status alone = Advance({live}); !alone.ok()) End(*live, v1::Job::FAILED, alone);
    }
  }

  // One step of each of `round`. On an error none has advanced.
  absl::Status Advance(const std::vector<LiveJob*>& round) {
    std::vector<Run*> runs;
    int64_t cost = 0;
    for (LiveJob* live : round) {
      runs.push_back(live->run.get());
      cost += live->share.cost;
    }
    const auto start = std::chrono::steady_clock::now();
    absl::StatusOr<std::vector<StepReport>> reports = AdvanceRuns(runs);
    if (!reports.ok()) return reports.status();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t i = 0; i < round.size(); ++i) {
      const double share = static_cast<double>(round[i]->share.cost) / static_cast<double>(cost);
      Record(*round[i], (*reports)[i], seconds, seconds * share);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<StepReport>> AdvanceRuns(const std::vector<Run*>& runs) {
    try {
      return AdvanceRound(*evaluator_, runs);
    } catch (const std::exception& error) {
      // The core answers with a Status; what it throws all the same must not end the process, and
      // with it every job.
      return absl::InternalError(error.what());
    }
  }

  void Record(LiveJob& live, const StepReport& report, double round_seconds, double run_seconds) {
    v1::Job& job = live.job;
    job.set_completed_iterations(live.run->completed_iterations());
    job.set_evaluations(job.evaluations() + static_cast<int64_t>(report.iteration.ids.size()));
    job.set_run_seconds(job.run_seconds() + run_seconds);
    if (live.run->done()) {
      job.set_state(v1::Job::SUCCEEDED);
      *job.mutable_end_time() = NowTimestamp();
    }
    StepRecord& record = live.unsaved_step.emplace();
    record.job = job;
    record.step = converter_.ToStep(report);
    record.step.set_seconds(round_seconds);
    record.step.set_evaluations(job.evaluations());
    record.iteration = Converter::ToIteration(report.iteration);
    record.checkpoint = live.run->Save();
    if (live.run->done()) live.run.reset();
    Save(live);
  }

  void MarkRunning(LiveJob& live) {
    live.job.set_state(v1::Job::RUNNING);
    if (!live.job.has_start_time()) *live.job.mutable_start_time() = NowTimestamp();
    // Not retried: the first step carries the same row.
    if (absl::Status status = store_.UpdateJob(live.job); !status.ok()) StoreFailed(live, status);
    spdlog::info("job {} runs from iteration {}", live.job.id(), live.job.completed_iterations());
  }

  void End(LiveJob& live, v1::Job::State state, const absl::Status& error) {
    live.job.set_state(state);
    *live.job.mutable_end_time() = NowTimestamp();
    if (!error.ok()) *live.job.mutable_error() = ToRpcStatus(error);
    live.unsaved_end = live.job;
    live.run.reset();
    Save(live);
  }

  // Persists and then publishes what is pending of a job.
  void Save(LiveJob& live) {
    if (live.unsaved_step.has_value()) {
      if (absl::Status status = store_.AppendStep(*live.unsaved_step); !status.ok()) {
        return StoreFailed(live, status);
      }
      feeds_.Publish(live.job.id(), MakeStepUpdate(std::move(live.unsaved_step->step)));
      live.unsaved_step.reset();
    }
    if (live.unsaved_end.has_value()) {
      if (absl::Status status = store_.UpdateJob(*live.unsaved_end); !status.ok()) {
        return StoreFailed(live, status);
      }
      live.unsaved_end.reset();
    }
    StoreWorks();
    if (IsTerminal(live.job.state())) Announce(live);
  }

  void Announce(LiveJob& live) {
    live.gone = true;
    const v1::Job& job = live.job;
    feeds_.Publish(job.id(), MakeEndedUpdate(job));
    for (CancelDone& done : live.cancels) done(job);
    live.cancels.clear();
    spdlog::info("job {} {} after {} iterations, {:.1f} s of the device{}{}", job.id(),
                 v1::Job::State_Name(job.state()), job.completed_iterations(), job.run_seconds(),
                 job.has_error() ? ": " : "", job.error().message());
  }

  void StoreFailed(const LiveJob& live, const absl::Status& status) {
    next_save_ = absl::Now() + options_.store_retry;
    if (!store_failing_) {
      spdlog::error("job {} waits: the store refused a write, which is tried again every {}: {}",
                    live.job.id(), absl::FormatDuration(options_.store_retry), Describe(status));
    }
    store_failing_ = true;
  }

  void StoreWorks() {
    if (store_failing_) spdlog::info("the store takes writes again");
    store_failing_ = false;
  }

  void SaveAgain(bool force) {
    if (!force && absl::Now() < next_save_) return;
    for (auto* jobs : {&active_, &waiting_}) {
      for (auto& live : *jobs) {
        if (!live->unsaved()) continue;
        Save(*live);
        // It has not earned a burst for the time in which it could not run.
        if (live->runnable()) {
          live->share.virtual_time =
              std::max(live->share.virtual_time, JoinTime(Shares(live.get())));
        }
      }
    }
  }

  void ForgetGone() {
    const auto gone = [](const std::unique_ptr<LiveJob>& live) { return live->gone; };
    std::erase_if(active_, gone);
    std::erase_if(waiting_, gone);
  }

  const Converter& converter_;
  Store& store_;
  JobFeeds& feeds_;
  const EvaluatorFactory make_evaluator_;
  const SchedulerOptions options_;

  absl::Mutex mutex_;
  Inbox inbox_ ABSL_GUARDED_BY(mutex_);
  // Accepted and not answered.
  int score_calls_ ABSL_GUARDED_BY(mutex_) = 0;

  // Of the model's thread alone.
  std::unique_ptr<Evaluator> evaluator_;
  std::deque<std::unique_ptr<LiveJob>> active_;
  std::deque<std::unique_ptr<LiveJob>> waiting_;
  ScoreQueue scores_;
  absl::Time next_save_ = absl::InfinitePast();
  bool store_failing_ = false;

  absl::Mutex join_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

// The search of a stored job, if this server can continue it.
absl::StatusOr<SearchSpec> ParseStored(const Converter& converter, const v1::Job& job) {
  const Model& model = converter.model();
  if (job.model_fingerprint() != model.fingerprint()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "the job ran on a model with fingerprint " + job.model_fingerprint() +
                         ", but this server serves " + model.name() + " with fingerprint " +
                         model.fingerprint(),
                     "MODEL_CHANGED",
                     {{"job_fingerprint", job.model_fingerprint()},
                      {"model", model.name()},
                      {"model_fingerprint", model.fingerprint()}});
  }
  FieldViolations violations;
  SearchSpec spec = converter.ParseSpec(job.spec(), "spec", violations);
  if (!violations.empty()) return InvalidFields(violations);
  return spec;
}

}  // namespace

std::unique_ptr<Scheduler> MakeScheduler(const Converter& converter, Store& store, JobFeeds& feeds,
                                         EvaluatorFactory make_evaluator,
                                         const SchedulerOptions& options) {
  return std::make_unique<SchedulerImpl>(converter, store, feeds, std::move(make_evaluator),
                                         options);
}

absl::StatusOr<int> RecoverJobs(const Converter& converter, Store& store, JobFeeds& feeds,
                                Scheduler& scheduler) {
  absl::StatusOr<std::vector<v1::Job>> unfinished = store.UnfinishedJobs();
  if (!unfinished.ok()) return unfinished.status();
  int queued = 0;
  for (v1::Job& job : *unfinished) {
    absl::StatusOr<SearchSpec> spec = ParseStored(converter, job);
    if (spec.ok()) {
      job.set_state(v1::Job::QUEUED);
    } else {
      spdlog::warn("job {} cannot be continued: {}", job.id(), Describe(spec.status()));
      job.set_state(v1::Job::FAILED);
      *job.mutable_error() = ToRpcStatus(spec.status());
      *job.mutable_end_time() = NowTimestamp();
    }
    if (absl::Status status = store.UpdateJob(job); !status.ok()) return status;
    if (!spec.ok()) continue;
    absl::StatusOr<std::string> checkpoint = store.GetCheckpoint(job.id());
    if (!checkpoint.ok()) return checkpoint.status();
    feeds.Open(job.id(), job.completed_iterations());
    scheduler.Submit(std::move(job), *std::move(spec), *std::move(checkpoint));
    ++queued;
  }
  return queued;
}

}  // namespace epo
