// What CreateJob asks of a request before anything is kept of it.
#ifndef EPO_SERVER_JOB_REQUEST_H_
#define EPO_SERVER_JOB_REQUEST_H_

#include <functional>

#include "absl/status/statusor.h"
#include "epo/v1/service.pb.h"
#include "server/convert.h"
#include "server/limits.h"

namespace epo {

// The search that `request` asks for; INVALID_ARGUMENT with every bad field, see InvalidFields().
// `is_repeat`, called only when the request has a deadline, says whether it was accepted before: a
// deadline that has passed since is then no fault. Thread-safe.
absl::StatusOr<SearchSpec> CheckJobRequest(const v1::CreateJobRequest& request,
                                           const Converter& converter, const Limits& limits,
                                           const std::function<bool()>& is_repeat);

}  // namespace epo

#endif  // EPO_SERVER_JOB_REQUEST_H_
