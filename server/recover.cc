#include "server/recover.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "server/clock.h"
#include "server/log.h"
#include "server/status.h"

namespace epo {
namespace {

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

absl::StatusOr<int> RecoverJobs(const Converter& converter, Store& store, JobFeeds& feeds,
                                Scheduler& scheduler) {
  absl::StatusOr<std::vector<v1::Job>> unfinished = store.UnfinishedJobs();
  if (!unfinished.ok()) return unfinished.status();
  int live = 0;
  for (v1::Job& job : *unfinished) {
    const LogScope scope({.job = job.id(), .client = job.client()});
    absl::StatusOr<SearchSpec> spec = ParseStored(converter, job);
    const v1::Job::State before = job.state();
    if (spec.ok()) {
      if (before != v1::Job::PAUSED) job.set_state(v1::Job::QUEUED);
    } else {
      spdlog::warn("job {} cannot be continued: {}", job.id(), Describe(spec.status()));
      job.set_state(v1::Job::FAILED);
      *job.mutable_error() = ToRpcStatus(spec.status());
      *job.mutable_end_time() = NowTimestamp();
    }
    if (job.state() != before) {
      if (absl::Status status = store.UpdateJob(job); !status.ok()) return status;
    }
    if (!spec.ok()) continue;
    absl::StatusOr<std::string> checkpoint = store.GetCheckpoint(job.id());
    if (!checkpoint.ok()) return checkpoint.status();
    feeds.Open(job.id(), job.completed_iterations());
    scheduler.Submit(std::move(job), *std::move(spec), *std::move(checkpoint));
    ++live;
  }
  return live;
}

}  // namespace epo
