#include "server/scheduler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/clock.h"
#include "server/fair_share.h"
#include "server/job_queue.h"
#include "server/job_state.h"
#include "server/live_job.h"
#include "server/mailbox.h"
#include "server/model_calls.h"
#include "server/pace.h"
#include "server/row_budget.h"
#include "server/status.h"

namespace epo {
namespace {

// Costs of a round's jobs are added up.
constexpr int64_t kMaxCost = 1 << 29;

int64_t StepRows(const SearchSpec& spec) {
  const SearchOptions& options = spec.options;
  return int64_t{options.population} * (1 + options.children_per_parent) *
         RowsAPrompt(spec.objective, options.tokens);
}

// What a job of another model waits for.
std::string MissingModel(const v1::Job& job, const Model& model) {
  return absl::StrCat("another model: the job's has fingerprint ", job.model_fingerprint(),
                      ", this server's, ", model.name(), ", has ", model.fingerprint());
}

class SchedulerImpl final : public Scheduler {
 public:
  SchedulerImpl(const Converter& converter, Store& store, JobFeeds& feeds,
                EvaluatorFactory make_evaluator, const SchedulerOptions& options)
      : converter_(converter),
        make_evaluator_(std::move(make_evaluator)),
        options_(options),
        queue_(options.max_active_jobs),
        mailbox_(options.max_score_calls),
        ledger_(converter, store, feeds, options.store_retry, options.probation,
                options.store_writes),
        budget_(options.round_rows),
        thread_([this] { RunThread(); }) {}

  ~SchedulerImpl() override { Stop(absl::InfiniteFuture()); }

  void Submit(std::vector<Submission> submissions) override {
    std::vector<std::unique_ptr<LiveJob>> lives;
    for (Submission& submission : submissions) lives.push_back(MakeLive(std::move(submission)));
    mailbox_.Post(std::move(lives));
  }
  using Scheduler::Submit;

  void Cancel(const std::string& id, JobDone done) override {
    mailbox_.Post(Mail::Request{Mail::Wish::kCancel, id, std::move(done)});
  }
  void Pause(const std::string& id, JobDone done) override {
    mailbox_.Post(Mail::Request{Mail::Wish::kPause, id, std::move(done)});
  }
  void Resume(const std::string& id, JobDone done) override {
    mailbox_.Post(Mail::Request{Mail::Wish::kResume, id, std::move(done)});
  }

  void CancelSweep(const std::string& id, SweepDone done) override {
    mailbox_.Post(Mail::SweepRequest{id, std::move(done)});
  }

  void Describe(v1::Job& job) const override {
    queue_.Describe(job);
    if (!IsTerminal(job.state()) && !RunsHere(job)) job.set_waits_for(MissingModel(job, model()));
  }

  void DescribeCost(const SearchSpec& spec, v1::Job& job) const override {
    const int64_t rows = StepRows(spec);
    job.set_step_rows(rows);
    if (const auto seconds = round_pace_.SecondsOf(rows)) job.set_estimated_step_seconds(*seconds);
  }

  void ScorePrompts(ScoreSpec spec, std::function<bool()> abandoned, ScoreDone done) override {
    Take(MakeScoreCall(model(), std::move(spec), std::move(abandoned), std::move(done)));
  }

  void Take(std::unique_ptr<ModelCall> call) override { mailbox_.Post(std::move(call)); }

  absl::Status WaitUntilReady() override {
    ready_.WaitForNotification();
    return made_;
  }

  void StopRounds() override {
    mailbox_.Close();
    // Also while a step that takes too long for the drain is still under way.
    ledger_.Close();
  }

  bool Stop(absl::Time deadline) override {
    StopRounds();
    if (!stopped_.WaitForNotificationWithDeadline(deadline)) return false;
    absl::MutexLock lock(&join_mutex_);
    if (thread_.joinable()) thread_.join();
    return true;
  }

 private:
  const Model& model() const { return converter_.model(); }

  bool RunsHere(const v1::Job& job) const {
    return job.model_fingerprint() == model().fingerprint();
  }

  // Its job waits in the queue already, unless it is held.
  std::unique_ptr<LiveJob> MakeLive(Submission submission) {
    auto live = std::make_unique<LiveJob>();
    const v1::Job& job = submission.job;
    live->share = {.client = job.client(),
                   .weight = PriorityWeight(PriorityOf(job.spec())),
                   .cost = static_cast<int>(std::min(StepRows(submission.spec), kMaxCost))};
    if (job.spec().has_deadline()) live->deadline = ToTime(job.spec().deadline());
    live->run_seconds_before = job.run_seconds();
    live->held = !RunsHere(job);
    if (!submission.stored) live->unsaved_state = job;
    live->job = std::move(submission.job);
    live->spec = std::move(submission.spec);
    live->checkpoint = std::move(submission.checkpoint);
    live->traceparent = LogScope::Current().traceparent;
    if (live->job.state() == v1::Job::QUEUED) JoinQueue(*live, submission.had_place);
    return live;
  }

  void JoinQueue(const LiveJob& live, bool had_place = false) {
    if (!live.held) queue_.Join(live.job, live.rows_left(), had_place);
  }

  // Everything below runs on the model's thread.

  void RunThread() {
    made_ = MakeEvaluator();
    if (!made_.ok()) mailbox_.Close();
    ready_.Notify();
    while (true) {
      Mail mail = mailbox_.Take(NextWork());
      const bool stop = mail.stop;
      for (auto& job : mail.submitted) Enter(std::move(job));
      for (Mail::Request& request : mail.requests) Obey(request);
      for (Mail::SweepRequest& sweep : mail.cancelled_sweeps) CancelJobsOf(sweep);
      for (auto& call : mail.calls) calls_.Add(std::move(call));
      SaveAgain(/*force=*/stop);
      if (stop) break;
      EndOverdue();
      ServeCalls();
      RunRound();
      ForgetGone();
      Admit();
    }
    ledger_.Rest();
    mailbox_.ReleaseCalls(calls_.FailAll(ShuttingDown()));
    for (auto& [id, live] : jobs_) {
      if (live->unsaved()) {
        const LogScope scope(live->log_fields());
        spdlog::error("job {} stops with its last step not persisted; the step will be run again",
                      id);
      }
      for (JobDone& done : live->waiters) done(ShuttingDown());
    }
    active_.clear();
    jobs_.clear();
    evaluator_.reset();
    stopped_.Notify();
  }

  absl::Status MakeEvaluator() {
    try {
      evaluator_ = make_evaluator_();
      return absl::OkStatus();
    } catch (const std::exception& error) {
      // libtorch's errors go on with where in its code they were thrown.
      const std::string what = error.what();
      return absl::InternalError(absl::StrCat("the model cannot be run on ", model().device(), ": ",
                                              what.substr(0, what.find('\n'))));
    }
  }

  // When there is something to do though nobody asks for anything.
  absl::Time NextWork() const {
    absl::Time deadline = deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
    if (!unsaved_.empty()) deadline = std::min(deadline, ledger_.next_try());
    const auto runnable = [](const LiveJob* live) { return live->runnable(); };
    if (std::any_of(active_.begin(), active_.end(), runnable)) {
      deadline = std::min(deadline, round_refused_ ? ledger_.next_try() : absl::InfinitePast());
    }
    return calls_.empty() ? deadline : absl::InfinitePast();
  }

  void ServeCalls() {
    if (calls_.empty()) return;
    // No job is to blame for what becomes of them.
    ledger_.Rest();
    mailbox_.ReleaseCalls(calls_.Serve(*evaluator_, options_.round_rows));
  }

  void Enter(std::unique_ptr<LiveJob> live) {
    const std::string id = live->job.id();
    if (live->deadline != absl::InfiniteFuture()) deadlines_.emplace(live->deadline, id);
    LiveJob& entered = *(jobs_[id] = std::move(live));
    if (!entered.unsaved()) return;
    ledger_.Save(entered);
    Settle(entered);
  }

  void Obey(Mail::Request& request) {
    const auto it = jobs_.find(request.id);
    if (it == jobs_.end() || it->second->gone) return request.done(JobNotFound(request.id));
    LiveJob& live = *it->second;
    const v1::Job::State state = live.job.state();
    // One that ends, but whose end is not persisted yet, tells so once it is.
    if (!IsTerminal(state)) {
      const bool paused = state == v1::Job::PAUSED;
      if (request.wish == Mail::Wish::kPause && paused) return request.done(JobPaused(live.job));
      if (request.wish == Mail::Wish::kResume && !paused) {
        return request.done(JobNotPaused(live.job));
      }
    }
    live.waiters.push_back(std::move(request.done));
    if (IsTerminal(state)) return;
    switch (request.wish) {
      case Mail::Wish::kCancel:
        return End(live, v1::Job::CANCELLED, absl::OkStatus());
      case Mail::Wish::kPause:
        queue_.Leave(live.job.id());
        return Park(live, v1::Job::PAUSED);
      case Mail::Wish::kResume:
        JoinQueue(live);
        return Park(live, v1::Job::QUEUED);
    }
  }

  void CancelJobsOf(Mail::SweepRequest& sweep) {
    // Told when the last of those who hold it lets go of it.
    const std::shared_ptr<absl::Status> outcome(
        new absl::Status, [done = std::move(sweep.done)](absl::Status* status) {
          done(*status);
          delete status;
        });
    std::vector<LiveJob*> ending;
    for (auto& [id, live] : jobs_) {
      if (live->job.sweep() != sweep.id || live->gone) continue;
      live->waiters.push_back(
          [outcome](const absl::StatusOr<v1::Job>& job) { outcome->Update(job.status()); });
      if (!IsTerminal(live->job.state())) ending.push_back(live.get());
    }
    for (const LiveJob* live : ending) queue_.Leave(live->job.id());
    ledger_.EndAll(ending, v1::Job::CANCELLED);
    for (LiveJob* live : ending) Settle(*live);
  }

  void End(LiveJob& live, v1::Job::State state, const absl::Status& error) {
    // First, so that whoever is told of the end finds the others' places moved up.
    queue_.Leave(live.job.id());
    ledger_.End(live, state, error);
    Settle(live);
  }

  void Fail(LiveJob& live, const absl::Status& reason) {
    End(live, v1::Job::FAILED, JobFailed(live.job, reason));
  }

  void Park(LiveJob& live, v1::Job::State state) {
    ledger_.Park(live, state);
    Settle(live);
  }

  // Follows up on what the ledger did with a job.
  void Settle(LiveJob& live) {
    if (live.unsaved()) unsaved_.insert(live.job.id());
    if (IsTerminal(live.job.state())) {
      queue_.Leave(live.job.id());
      deadlines_.erase({live.deadline, live.job.id()});
    }
    if (live.gone) gone_.push_back(live.job.id());
  }

  void EndOverdue() {
    const absl::Time now = absl::Now();
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      LiveJob& live = *jobs_.at(deadlines_.begin()->second);
      End(live, v1::Job::FAILED, JobDeadlineExceeded(live.job));
    }
  }

  // Moves waiting jobs into memory as far as there is room, and others out of it for clients that
  // have too few places.
  void Admit() {
    for (auto id = queue_.Unfair(); id.has_value(); id = queue_.Unfair()) GiveWay(*id);
    while (active_.size() > 1 && HeldBytes() > options_.max_held_bytes) GiveWay(*queue_.Newest());
    for (auto id = queue_.Next(); id.has_value(); id = queue_.Next()) {
      const auto it = jobs_.find(*id);
      // Its submission is still in the mailbox.
      if (it == jobs_.end()) return;
      LiveJob& live = *it->second;
      const bool fits = HeldBytes() + HeldBytes(live) <= options_.max_held_bytes;
      queue_.Hold(!fits && !active_.empty());
      if (!fits && !active_.empty()) return;
      queue_.Admit(*id);
      if (absl::Status made = MakeRun(live); !made.ok()) {
        Fail(live, made);
        continue;
      }
      active_.push_back(&live);
      shares_.Join(live.share);
    }
  }

  void GiveWay(const std::string& id) {
    LiveJob& live = *jobs_.at(id);
    queue_.GiveWay(id);
    Park(live, v1::Job::QUEUED);
    std::erase(active_, &live);
  }

  // What a job's survivors hold on the device when all are distinct, judged by what was measured.
  int64_t HeldBytes(const LiveJob& live) const {
    return static_cast<int64_t>(bytes_per_row_ * SurvivorRows(live));
  }

  int64_t HeldBytes() const {
    int64_t bytes = 0;
    for (const LiveJob* live : active_) bytes += HeldBytes(*live);
    return bytes;
  }

  static double SurvivorRows(const LiveJob& live) {
    const SearchOptions& options = live.spec.options;
    return static_cast<double>(options.population) *
           static_cast<double>(RowsAPrompt(live.spec.objective, options.tokens));
  }

  absl::Status MakeRun(LiveJob& live) {
    auto run = live.checkpoint.empty()
                   ? Run::Create(model(), live.spec.objective, live.spec.options)
                   : Run::Restore(model(), live.spec.objective, live.spec.options, live.checkpoint);
    live.checkpoint.clear();
    if (!run.ok()) return run.status();
    live.run = *std::move(run);
    return absl::OkStatus();
  }

  void RunRound() {
    std::vector<LiveJob*> runnable;
    std::vector<const Share*> shares;
    for (LiveJob* live : active_) {
      if (!live->runnable()) continue;
      runnable.push_back(live);
      shares.push_back(&live->share);
    }
    if (runnable.empty()) return ledger_.Rest();
    if (round_refused_ && absl::Now() < ledger_.next_try()) return;
    std::vector<LiveJob*> round;
    for (size_t i : shares_.PickRound(shares, budget_.rows())) round.push_back(runnable[i]);
    // A suspect runs alone when its turn comes: so its next crash is its own, and nobody else's.
    if (round[0]->suspect()) round.resize(1);
    std::erase_if(round, [&](const LiveJob* live) { return live->suspect() && live != round[0]; });
    if (!Begin(round)) return;
    const absl::Status status = Advance(round);
    if (status.ok()) return SetBudget([this] { budget_.Grow(); });
    if (absl::IsResourceExhausted(status)) return ShrinkRound(round, status);
    if (round.size() == 1) return Fail(*round[0], status);
    spdlog::warn("a round of {} jobs failed, running each alone: {}", round.size(),
                 epo::Describe(status));
    for (LiveJob* live : round) AdvanceAlone(*live);
  }

  // Notes that the jobs are at work. False when the store refuses, or after Stop(); they must wait.
  bool Begin(const std::vector<LiveJob*>& round) {
    round_refused_ = !ledger_.Begin(round).ok();
    return !round_refused_;
  }

  void AdvanceAlone(LiveJob& live) {
    if (!Begin({&live})) return;
    if (absl::Status alone = Advance({&live}); !alone.ok()) Fail(live, alone);
  }

  // The device's memory did not suffice for `round`.
  void ShrinkRound(const std::vector<LiveJob*>& round, const absl::Status& status) {
    int rows = 0;
    for (const LiveJob* live : round) rows += live->share.cost;
    if (!budget_.least()) {
      SetBudget([this, rows] { budget_.Halve(rows); });
      spdlog::warn("a round of {} rows of {} jobs did not fit, trying {} rows: {}", rows,
                   round.size(), budget_.rows(), epo::Describe(status));
      return;
    }
    for (LiveJob* live : round) {
      // What other jobs hold may be what is missing.
      for (LiveJob* other : active_) {
        if (other != live && other->runnable()) other->run->Release();
      }
      AdvanceAlone(*live);
    }
  }

  template <class Change>
  void SetBudget(Change change) {
    const int before = budget_.rows();
    change();
    if (budget_.rows() != before) evaluator_->LimitRows(budget_.rows());
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
    const double seconds = Seconds(start);
    for (size_t i = 0; i < round.size(); ++i) {
      LiveJob& live = *round[i];
      shares_.Charge(live.share);
      bytes_per_row_ = std::max(bytes_per_row_,
                                static_cast<double>(live.run->device_bytes()) / SurvivorRows(live));
      const double share = static_cast<double>(live.share.cost) / static_cast<double>(cost);
      ledger_.Record(live, (*reports)[i], seconds, seconds * share);
      queue_.Progress(live.job.id(), live.rows_left());
      Settle(live);
    }
    round_pace_.Add(cost, seconds);
    queue_.SetPace(pace_.Add(static_cast<double>(cost), Seconds(start)));
    return absl::OkStatus();
  }

  static double Seconds(std::chrono::steady_clock::time_point since) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
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
    if (unsaved_.empty() || (!force && absl::Now() < ledger_.next_try())) return;
    for (const std::string& id : std::exchange(unsaved_, {})) {
      LiveJob& live = *jobs_.at(id);
      ledger_.Save(live);
      // It has not earned a burst for the time in which it could not run.
      if (live.runnable()) shares_.Join(live.share);
      Settle(live);
    }
  }

  void ForgetGone() {
    std::erase_if(active_, [](const LiveJob* live) { return live->run == nullptr; });
    for (const std::string& id : std::exchange(gone_, {})) jobs_.erase(id);
  }

  const Converter& converter_;
  const EvaluatorFactory make_evaluator_;
  const SchedulerOptions options_;
  JobQueue queue_;

  Mailbox mailbox_;

  // Written before the notification.
  absl::Status made_;
  absl::Notification ready_;

  // Of the model's thread alone.
  std::unique_ptr<Evaluator> evaluator_;
  absl::flat_hash_map<std::string, std::unique_ptr<LiveJob>> jobs_;
  // Those with a place; all with a run are among them.
  std::vector<LiveJob*> active_;
  // Those that the store still has to take something of.
  absl::flat_hash_set<std::string> unsaved_;
  // Those that have ended and can be forgotten.
  std::vector<std::string> gone_;
  std::set<std::pair<absl::Time, std::string>> deadlines_;
  FairShare shares_;
  ModelCalls calls_;
  JobLedger ledger_;
  RowBudget budget_;
  Pace pace_;
  // The store would not note who is at work.
  bool round_refused_ = false;
  // The most that a token of a job's survivors was found to hold on the device.
  double bytes_per_row_ = 0;

  // Asked by callers.
  RoundPace round_pace_;
  absl::Notification stopped_;
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
