// What the states of a job mean, and what is refused in which.
#ifndef EPO_SERVER_JOB_STATE_H_
#define EPO_SERVER_JOB_STATE_H_

#include "absl/status/status.h"
#include "epo/v1/job.pb.h"

namespace epo {

// Whether a job in `state` has ended for good.
inline bool IsTerminal(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

inline constexpr int kDefaultPriority = 50;
inline int PriorityOf(const v1::JobSpec& spec) {
  return spec.has_priority() ? spec.priority() : kDefaultPriority;
}

// FAILED_PRECONDITION, each with the job's state: it has ended, has not, is paused already, is not
// paused, is deleted with its sweep only.
absl::Status JobEnded(const v1::Job& job);
absl::Status JobNotEnded(const v1::Job& job);
absl::Status JobPaused(const v1::Job& job);
absl::Status JobNotPaused(const v1::Job& job);
absl::Status JobOfSweep(const v1::Job& job);

// ABORTED: the error of a job whose steps were under way when a server died, too often.
absl::Status JobKillsServers(const v1::Job& job, int max_attempts);

// The error of a job whose run could not begin or go on for `reason`.
absl::Status JobFailed(const v1::Job& job, const absl::Status& reason);

// DEADLINE_EXCEEDED: the error of a job whose deadline has passed.
absl::Status JobDeadlineExceeded(const v1::Job& job);

}  // namespace epo

#endif  // EPO_SERVER_JOB_STATE_H_
