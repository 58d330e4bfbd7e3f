// A job as its caller may see it.
#ifndef EPO_SERVER_FIND_JOB_H_
#define EPO_SERVER_FIND_JOB_H_

#include <string>

#include "absl/status/statusor.h"
#include "epo/v1/job.pb.h"
#include "server/call_context.h"
#include "server/status.h"
#include "server/store.h"

namespace epo {

// NOT_FOUND for a job of another client as for one that does not exist.
inline absl::StatusOr<v1::Job> FindJob(const Store& store, const CallContext& context,
                                       const std::string& id) {
  absl::StatusOr<v1::Job> job = store.GetJob(id);
  if (absl::IsNotFound(job.status()) || (job.ok() && !context.Sees(*job))) return JobNotFound(id);
  return job;
}

}  // namespace epo

#endif  // EPO_SERVER_FIND_JOB_H_
