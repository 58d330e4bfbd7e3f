#include "server/scheduler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/fair_share.h"
#include "server/job_state.h"
#include "server/live_job.h"
#include "server/score_queue.h"
#include "server/status.h"

namespace epo {
namespace {

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
        make_evaluator_(std::move(make_evaluator)),
        options_(options),
        ledger_(converter, store, feeds, options.store_retry, options.store_writes),
        thread_([this] { RunThread(); }) {}

  ~SchedulerImpl() override { Stop(); }

  void Submit(v1::Job job, SearchSpec spec, std::string checkpoint) override {
    auto live = std::make_unique<LiveJob>();
    live->job = std::move(job);
    live->spec = std::move(spec);
    live->checkpoint = std::move(checkpoint);
    live->traceparent = LogScope::Current().traceparent;
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
          const LogScope scope(live->log_fields());
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
        if (live->unsaved()) deadline = std::min(deadline, ledger_.next_try());
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
        if (!IsTerminal(live->job.state()))
          ledger_.End(*live, v1::Job::CANCELLED, absl::OkStatus());
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
        ledger_.End(job, v1::Job::FAILED, made);
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
      if (live->job.state() == v1::Job::QUEUED) ledger_.MarkRunning(*live);
    }
    const absl::Status status = Advance(round);
    if (status.ok()) return;
    if (round.size() == 1) return ledger_.End(*round[0], v1::Job::FAILED, status);
    spdlog::warn("a round of {} jobs failed, running each alone: {}", round.size(),
                 Describe(status));
    for (LiveJob* live : round) {
      if (absl::Status alone = Advance({live}); !alone.ok())
        ledger_.End(*live, v1::Job::FAILED, alone);
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
    const MeteredRound metered(options_.metrics, round.size(), cost);
    const auto start = std::chrono::steady_clock::now();
    absl::StatusOr<std::vector<StepReport>> reports = AdvanceRuns(runs);
    if (!reports.ok()) return reports.status();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t i = 0; i < round.size(); ++i) {
      const double share = static_cast<double>(round[i]->share.cost) / static_cast<double>(cost);
      ledger_.Record(*round[i], (*reports)[i], seconds, seconds * share);
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

  void SaveAgain(bool force) {
    if (!force && absl::Now() < ledger_.next_try()) return;
    for (auto* jobs : {&active_, &waiting_}) {
      for (auto& live : *jobs) {
        if (!live->unsaved()) continue;
        ledger_.Save(*live);
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
  JobLedger ledger_;

  absl::Mutex join_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace

std::unique_ptr<Scheduler> MakeScheduler(const Converter& converter, Store& store, JobFeeds& feeds,
                                         EvaluatorFactory make_evaluator,
                                         const SchedulerOptions& options) {
  return std::make_unique<SchedulerImpl>(converter, store, feeds, std::move(make_evaluator),
                                         options);
}

}  // namespace epo
