// What CreateJob, and CreateSweep for its jobs, ask of a request before anything is kept of it.
#ifndef EPO_SERVER_JOB_REQUEST_H_
#define EPO_SERVER_JOB_REQUEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "epo/v1/service.pb.h"
#include "server/convert.h"
#include "server/limits.h"

namespace epo {

// The search that `request` asks for; INVALID_ARGUMENT with every bad field, see InvalidFields().
// `initial_job`: the job out of whose frontier the initial prompts come, which nobody gave; empty
// for none. Thread-safe.
absl::StatusOr<SearchSpec> CheckJobRequest(const v1::CreateJobRequest& request,
                                           const Converter& converter, const Limits& limits,
                                           const std::string& initial_job = "");

// The parts of it: each adds what is wrong to `violations`.
void CheckRequestId(const std::string& request_id, FieldViolations& violations);
// The search of `spec`, which stands under `path` in the request; valid only if nothing was added.
SearchSpec CheckJobSpec(const v1::JobSpec& spec, const std::string& path,
                        const Converter& converter, const Limits& limits,
                        FieldViolations& violations);

}  // namespace epo

#endif  // EPO_SERVER_JOB_REQUEST_H_
