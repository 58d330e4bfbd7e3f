// The wall clock as the wire writes it.
#ifndef EPO_SERVER_CLOCK_H_
#define EPO_SERVER_CLOCK_H_

#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"

namespace epo {

// To the nanosecond; protobuf's own function gives whole seconds.
inline google::protobuf::Timestamp NowTimestamp() {
  const int64_t nanos = absl::GetCurrentTimeNanos();
  google::protobuf::Timestamp now;
  now.set_seconds(nanos / 1'000'000'000);
  now.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return now;
}

inline absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

}  // namespace epo

#endif  // EPO_SERVER_CLOCK_H_
