#include "server/job_state.h"

#include <google/protobuf/util/time_util.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "server/status.h"

namespace epo {
namespace {

absl::Status WrongState(const v1::Job& job, const char* reason, const std::string& what) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("job \"", job.id(), "\" ", what), reason,
                   {{"id", job.id()}, {"state", v1::Job::State_Name(job.state())}});
}

}  // namespace

absl::Status JobEnded(const v1::Job& job) {
  return WrongState(job, "JOB_ENDED",
                    absl::StrCat("has already ended: ", v1::Job::State_Name(job.state())));
}

absl::Status JobNotEnded(const v1::Job& job) {
  return WrongState(
      job, "JOB_NOT_ENDED",
      absl::StrCat("is ", v1::Job::State_Name(job.state()), "; cancel it before deleting it"));
}

absl::Status JobPaused(const v1::Job& job) {
  return WrongState(job, "JOB_PAUSED", "is paused already");
}

absl::Status JobNotPaused(const v1::Job& job) {
  return WrongState(
      job, "JOB_NOT_PAUSED",
      absl::StrCat("is ", v1::Job::State_Name(job.state()), ", so there is nothing to resume"));
}

absl::Status JobOfSweep(const v1::Job& job) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("job \"", job.id(), "\" belongs to ", job.sweep(), ", with which it is deleted"),
      "JOB_OF_SWEEP",
      {{"id", job.id()}, {"state", v1::Job::State_Name(job.state())}, {"sweep", job.sweep()}});
}

absl::Status JobKillsServers(const v1::Job& job, int max_attempts) {
  return MakeError(
      absl::StatusCode::kAborted,
      absl::StrCat("the server died ", job.crashes(), job.crashes() == 1 ? " time" : " times",
                   " in a step of this job, the last time in iteration ",
                   job.completed_iterations(), ", and --max-attempts is ", max_attempts,
                   "; its steps are kept. See the server's log and the system's for why (out of "
                   "memory?); then submit it again, smaller if that was why"),
      "MAX_ATTEMPTS_REACHED",
      {{"id", job.id()},
       {"crashes", absl::StrCat(job.crashes())},
       {"max_attempts", absl::StrCat(max_attempts)},
       {"iteration", absl::StrCat(job.completed_iterations())}});
}

absl::Status JobFailed(const v1::Job& job, const absl::Status& reason) {
  // The core's answer when constraints allow nothing begins with their names.
  const std::string message(reason.message());
  if (!absl::IsFailedPrecondition(reason) || message.rfind("constraints.", 0) != 0) return reason;
  return MakeError(reason.code(), message, "CONSTRAINTS_ALLOW_NOTHING",
                   {{"id", job.id()}, {"constraints", message.substr(0, message.find(": "))}});
}

absl::Status JobDeadlineExceeded(const v1::Job& job) {
  const std::string deadline = google::protobuf::util::TimeUtil::ToString(job.spec().deadline());
  return MakeError(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat("the job's deadline, ", deadline, ", passed after ", job.completed_iterations(),
                   " of ", job.spec().iterations(), " iterations"),
      "JOB_DEADLINE_EXCEEDED",
      {{"id", job.id()},
       {"deadline", deadline},
       {"completed_iterations", absl::StrCat(job.completed_iterations())},
       {"iterations", absl::StrCat(job.spec().iterations())}});
}

}  // namespace epo
