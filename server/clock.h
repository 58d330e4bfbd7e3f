// The wall clock as the wire writes it.
#ifndef EPO_SERVER_CLOCK_H_
#define EPO_SERVER_CLOCK_H_

#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"

namespace epo {

inline google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  google::protobuf::Timestamp out;
  const int64_t seconds = absl::ToUnixSeconds(time);
  out.set_seconds(seconds);
  out.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return out;
}

// To the nanosecond; protobuf's own function gives whole seconds.
inline google::protobuf::Timestamp NowTimestamp() { return ToTimestamp(absl::Now()); }

inline absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

}  // namespace epo

#endif  // EPO_SERVER_CLOCK_H_
