// What torch throws when a device fails, as a status. Includes torch.
#ifndef EPO_CORE_EVALUATE_DEVICE_ERROR_H_
#define EPO_CORE_EVALUATE_DEVICE_ERROR_H_

#include <c10/util/Exception.h>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace epo {

// RESOURCE_EXHAUSTED when memory did not suffice, else INTERNAL. `doing`: what failed.
inline absl::Status DeviceError(const char* doing, const c10::Error& error) {
  const std::string what = absl::StrCat(doing, ": ", error.what_without_backtrace());
  return absl::StrContains(what, "out of memory") || absl::StrContains(what, "allocate memory")
             ? absl::ResourceExhaustedError(what)
             : absl::InternalError(what);
}

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_DEVICE_ERROR_H_
