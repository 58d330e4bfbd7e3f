// The wall clock as the wire writes it.
#ifndef EPO_SERVER_CLOCK_H_
#define EPO_SERVER_CLOCK_H_

#include <google/protobuf/util/time_util.h>

#include "google/protobuf/timestamp.pb.h"

namespace epo {

inline google::protobuf::Timestamp NowTimestamp() {
  return google::protobuf::util::TimeUtil::GetCurrentTime();
}

}  // namespace epo

#endif  // EPO_SERVER_CLOCK_H_
