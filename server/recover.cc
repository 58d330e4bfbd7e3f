#include "server/recover.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/clock.h"
#include "server/job_state.h"
#include "server/log.h"
#include "server/status.h"

namespace epo {
namespace {

// OK, or why the job, which has its crashes counted, cannot go on.
absl::Status ParseStored(const Converter& converter, const v1::Job& job, int max_attempts,
                         SearchSpec& spec) {
  if (job.crashes() >= max_attempts) return JobKillsServers(job, max_attempts);
  // What a job of another model asks for is for a server with that model to judge.
  if (job.model_fingerprint() != converter.model().fingerprint()) return absl::OkStatus();
  FieldViolations violations;
  spec = converter.ParseSpec(job.spec(), "spec", violations);
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

void CountCrash(v1::Job& job) {
  job.set_crashes(job.crashes() + 1);
  spdlog::warn("job {} was at work in iteration {} when the last server died, crash {}", job.id(),
               job.completed_iterations(), job.crashes());
}

void Fail(v1::Job& job, const absl::Status& error) {
  spdlog::warn("job {} cannot be continued: {}", job.id(), Describe(error));
  job.set_state(v1::Job::FAILED);
  *job.mutable_error() = ToRpcStatus(error);
  *job.mutable_end_time() = NowTimestamp();
}

}  // namespace

absl::StatusOr<int> RecoverJobs(const Converter& converter, Store& store, JobFeeds& feeds,
                                Scheduler& scheduler, int max_attempts) {
  absl::StatusOr<std::vector<v1::Job>> unfinished = store.UnfinishedJobs();
  if (!unfinished.ok()) return unfinished.status();
  absl::StatusOr<std::vector<std::string>> noted = store.NotedRound();
  if (!noted.ok()) return noted.status();
  const absl::flat_hash_set<std::string> at_work(noted->begin(), noted->end());
  int live = 0;
  bool takes_writes = true;
  std::vector<Scheduler::Submission> submissions;
  for (v1::Job& job : *unfinished) {
    const LogScope scope({.job = job.id(), .client = job.client()});
    const v1::Job::State before = job.state();
    if (before == v1::Job::RUNNING && at_work.contains(job.id())) CountCrash(job);
    if (before != v1::Job::PAUSED) job.set_state(v1::Job::QUEUED);
    Scheduler::Submission submission;
    submission.had_place = before == v1::Job::RUNNING;
    const absl::Status valid = ParseStored(converter, job, max_attempts, submission.spec);
    if (!valid.ok()) Fail(job, valid);
    if (job.state() != before) {
      // One refusal is enough to know.
      const absl::Status status = takes_writes ? store.UpdateJob(job) : absl::UnavailableError("");
      if (!status.ok() && !absl::IsResourceExhausted(status) && !absl::IsUnavailable(status)) {
        return status;
      }
      takes_writes = submission.stored = status.ok();
    }
    if (!IsTerminal(job.state())) ++live;
    if (IsTerminal(job.state()) && submission.stored) continue;
    absl::StatusOr<std::string> checkpoint = store.GetCheckpoint(job.id());
    if (!checkpoint.ok()) return checkpoint.status();
    submission.checkpoint = *std::move(checkpoint);
    feeds.Open(job.id(), job.completed_iterations());
    submission.job = std::move(job);
    submissions.push_back(std::move(submission));
  }
  // Together, so that the oldest does not begin before the first in the queue has come.
  scheduler.Submit(std::move(submissions));
  return live;
}

}  // namespace epo
