#include "server/live_job.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/clock.h"
#include "server/job_state.h"
#include "server/status.h"

namespace epo {
namespace {

// Who writes when it is no single job. No id has a space.
constexpr char kRound[] = "the next round";

// What a search that has made its last step, `report`, has to show. Nothing is FAILED_PRECONDITION.
absl::Status CheckFound(const Constraints& constraints, const StepReport& report) {
  if (!constraints.max_cross_entropy || !report.frontier.empty()) return absl::OkStatus();
  // While all are above the ceiling, what is least is kept: so the last pool has it.
  float least = std::numeric_limits<float>::infinity();
  for (const Score& score : report.iteration.scores) least = std::min(least, score.cross_entropy);
  return absl::FailedPreconditionError(absl::StrCat(
      "constraints.max_cross_entropy: no prompt that was scored has a cross-entropy of at most ",
      *constraints.max_cross_entropy, "; the least is ", least,
      ". Raise the ceiling, run more iterations, or start from more fluent prompts"));
}

}  // namespace

absl::Status JobLedger::Begin(const std::vector<LiveJob*>& round) {
  std::vector<std::string> ids;
  std::vector<LiveJob*> beginners;
  std::vector<v1::Job> begun;
  for (LiveJob* live : round) {
    ids.push_back(live->job.id());
    if (live->job.state() == v1::Job::RUNNING) continue;
    beginners.push_back(live);
    v1::Job& job = begun.emplace_back(live->job);
    job.set_state(v1::Job::RUNNING);
    if (!job.has_start_time()) *job.mutable_start_time() = NowTimestamp();
    if (!live->attempted) job.set_attempts(job.attempts() + 1);
  }
  std::sort(ids.begin(), ids.end());
  const absl::MutexLock lock(&round_mutex_);
  if (closed_) return absl::CancelledError("no step begins any more");
  if (begun.empty() && ids == noted_) return absl::OkStatus();
  if (absl::Status status = store_.NoteRound(ids, begun); !status.ok()) {
    noted_.reset();
    Refused(kRound, status);
    return status;
  }
  Accepted(kRound);
  noted_ = std::move(ids);
  for (size_t i = 0; i < begun.size(); ++i) {
    LiveJob& live = *beginners[i];
    live.job = std::move(begun[i]);
    live.attempted = true;
    const LogScope scope(live.log_fields());
    spdlog::info("job {} runs from iteration {}", live.job.id(), live.job.completed_iterations());
  }
  return absl::OkStatus();
}

void JobLedger::Rest() {
  const absl::MutexLock lock(&round_mutex_);
  ClearNote();
}

void JobLedger::Close() {
  const absl::MutexLock lock(&round_mutex_);
  closed_ = true;
  ClearNote();
}

void JobLedger::ClearNote() {
  // Not reported: until it succeeds, a crash is blamed on those that were at work last.
  if (noted_ && noted_->empty()) return;
  if (store_.NoteRound({}, {}).ok()) noted_.emplace();
}

void JobLedger::Record(LiveJob& live, const StepReport& report, double round_seconds,
                       double run_seconds) {
  v1::Job& job = live.job;
  job.set_completed_iterations(live.run->completed_iterations());
  job.set_evaluations(job.evaluations() + static_cast<int64_t>(report.iteration.ids.size()));
  job.set_run_seconds(job.run_seconds() + run_seconds);
  job.mutable_term_scales()->Assign(report.term_scales.begin(), report.term_scales.end());
  if (absl::Seconds(job.run_seconds() - live.run_seconds_before) >= probation_) job.clear_crashes();
  if (live.run->done()) {
    const absl::Status found = CheckFound(live.spec.options.constraints, report);
    job.set_state(found.ok() ? v1::Job::SUCCEEDED : v1::Job::FAILED);
    if (!found.ok()) *job.mutable_error() = ToRpcStatus(JobFailed(job, found));
    *job.mutable_end_time() = NowTimestamp();
  }
  StepRecord& record = live.unsaved_step.emplace();
  record.job = job;
  record.step = converter_.ToStep(report);
  record.step.set_seconds(round_seconds);
  record.step.set_evaluations(job.evaluations());
  record.iteration = Converter::ToIteration(job.spec().history() == v1::FRONTIER
                                                ? live.frontier_history.Reduce(report.iteration)
                                                : report.iteration);
  record.checkpoint = live.run->Save();
  if (live.run->done()) live.run.reset();
  Save(live);
}

void JobLedger::End(LiveJob& live, v1::Job::State state, const absl::Status& error) {
  live.job.set_state(state);
  *live.job.mutable_end_time() = NowTimestamp();
  if (!error.ok()) *live.job.mutable_error() = ToRpcStatus(error);
  live.unsaved_state = live.job;
  live.run.reset();
  Save(live);
}

void JobLedger::EndAll(const std::vector<LiveJob*>& jobs, v1::Job::State state) {
  const google::protobuf::Timestamp now = NowTimestamp();
  std::vector<v1::Job> rows;
  std::vector<LiveJob*> together;
  for (LiveJob* live : jobs) {
    // One with a step that is not persisted goes its own way: the step comes first.
    if (live->unsaved_step.has_value()) {
      End(*live, state, absl::OkStatus());
      continue;
    }
    live->job.set_state(state);
    *live->job.mutable_end_time() = now;
    live->unsaved_state = live->job;
    live->run.reset();
    rows.push_back(live->job);
    together.push_back(live);
  }
  if (rows.empty()) return;
  const absl::Status status = store_.UpdateJobs(rows);
  for (LiveJob* live : together) {
    const LogScope scope(live->log_fields());
    if (!status.ok()) {
      Refused(live->job.id(), status);
      continue;
    }
    live->unsaved_state.reset();
    Accepted(live->job.id());
    Announce(*live, spdlog::level::debug);
    Answer(*live);
  }
}

void JobLedger::Park(LiveJob& live, v1::Job::State state) {
  const LogScope scope(live.log_fields());
  live.Unload();
  live.job.set_state(state);
  live.unsaved_state = live.job;
  Save(live);
  spdlog::info("job {} is {} at iteration {}", live.job.id(), v1::Job::State_Name(state),
               live.job.completed_iterations());
}

void JobLedger::Save(LiveJob& live) {
  const LogScope scope(live.log_fields());
  if (live.unsaved_step.has_value()) {
    if (absl::Status status = store_.AppendStep(*live.unsaved_step); !status.ok()) {
      return Refused(live.job.id(), status);
    }
    feeds_.Publish(live.job.id(), MakeStepUpdate(std::move(live.unsaved_step->step)));
    live.unsaved_step.reset();
  }
  if (live.unsaved_state.has_value()) {
    if (absl::Status status = store_.UpdateJob(*live.unsaved_state); !status.ok()) {
      return Refused(live.job.id(), status);
    }
    live.unsaved_state.reset();
    feeds_.NoteChange(live.job.id());
  }
  Accepted(live.job.id());
  if (IsTerminal(live.job.state())) Announce(live);
  Answer(live);
}

void JobLedger::Answer(LiveJob& live) {
  const std::vector<JobDone> waiters = std::exchange(live.waiters, {});
  for (const JobDone& done : waiters) done(live.job);
}

void JobLedger::Announce(LiveJob& live, spdlog::level::level_enum level) {
  live.gone = true;
  const v1::Job& job = live.job;
  feeds_.Publish(job.id(), MakeEndedUpdate(job));
  spdlog::log(level, "job {} {} after {} iterations, {:.1f} s of the device{}{}", job.id(),
              v1::Job::State_Name(job.state()), job.completed_iterations(), job.run_seconds(),
              job.has_error() ? ": " : "", job.error().message());
}

void JobLedger::Refused(const std::string& writer, const absl::Status& status) {
  next_try_ = absl::Now() + retry_;
  // Once, not at each try and for each job.
  const bool news = refused_.empty();
  refused_.insert(writer);
  if (!news) return;
  spdlog::error("{} waits: the store refused a write, which is tried again every {}: {}",
                writer == kRound ? writer : "job " + writer, absl::FormatDuration(retry_),
                Describe(status));
  if (store_writes_) store_writes_(status);
}

void JobLedger::Accepted(const std::string& writer) {
  // Whoever it is, the store takes writes. A round need not come again.
  if (refused_.erase(kRound) + refused_.erase(writer) == 0 || !refused_.empty()) return;
  spdlog::info("the store takes writes again");
  if (store_writes_) store_writes_(absl::OkStatus());
}

}  // namespace epo
