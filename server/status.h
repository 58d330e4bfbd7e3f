// Errors on their way out: absl::Status with google.rpc details becomes grpc::Status. The only
// converter.
#ifndef EPO_SERVER_STATUS_H_
#define EPO_SERVER_STATUS_H_

#include <grpcpp/support/status.h>

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/base/field_violation.h"
#include "google/rpc/status.pb.h"

namespace epo {

// The domain of every google.rpc.ErrorInfo of this service.
inline constexpr char kErrorDomain[] = "epo.v1";

// An error with a google.rpc.ErrorInfo. `reason` is UPPER_SNAKE_CASE; `metadata` repeats each value
// that `message` mentions.
absl::Status MakeError(absl::StatusCode code, std::string_view message, std::string_view reason,
                       const std::map<std::string, std::string>& metadata = {});

// INVALID_ARGUMENT with a google.rpc.BadRequest that lists `violations` (at least one), each with
// the path of its field from the request. Details travel in HTTP/2 trailers, which clients bound at
// 8 KiB: what would not fit is counted in a last entry.
absl::Status InvalidFields(const FieldViolations& violations);

// `status` with a google.rpc.RetryInfo: waiting `delay` helps.
absl::Status WithRetry(absl::Status status, absl::Duration delay);

// NOT_FOUND for the id of a job or a sweep.
absl::Status JobNotFound(std::string_view id);
absl::Status SweepNotFound(std::string_view id);

// ALREADY_EXISTS for a request_id that another request has taken.
absl::Status RequestIdReused(std::string_view request_id);

// UNAVAILABLE, with RetryInfo, for what comes while the server drains.
absl::Status ShuttingDown();

// One line for the log: code and message.
std::string Describe(const absl::Status& status);

// `status`, which may be OK, with its details; an error without an ErrorInfo gets one whose reason
// is the code's name.
google::rpc::Status ToRpcStatus(const absl::Status& status);

// The same for the wire: the details go in grpc-status-details-bin.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace epo

#endif  // EPO_SERVER_STATUS_H_
