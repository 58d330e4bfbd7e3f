// Times as people and scripts read them. Pure functions.
#ifndef EPO_CLIENT_CLI_TIME_H_
#define EPO_CLIENT_CLI_TIME_H_

#include <absl/time/time.h>
#include <google/protobuf/timestamp.pb.h>

#include <string>

namespace epo::cli {

// "2026-01-02T03:04:05.678Z".
std::string FormatRfc3339(const google::protobuf::Timestamp& time);

google::protobuf::Timestamp ToTimestamp(absl::Time time);

absl::Time ToTime(const google::protobuf::Timestamp& time);

// The two largest units, as in a running clock: "7s", "2m03s", "1h05m", "3d04h". A negative
// duration is "0s".
std::string DurationText(absl::Duration duration);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_TIME_H_
