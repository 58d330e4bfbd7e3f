#include "server/job_request.h"

#include <google/protobuf/util/time_util.h>

#include <cstdint>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/base/field_violation.h"
#include "server/clock.h"
#include "server/status.h"

namespace epo {
namespace {

// 8-4-4-4-12 hexadecimal digits.
bool IsUuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !absl::ascii_isxdigit(static_cast<unsigned char>(text[i]))) {
      return false;
    }
  }
  return true;
}

// What is wrong with a new job's deadline, if anything.
void CheckDeadline(const v1::JobSpec& spec, FieldViolations& violations) {
  using google::protobuf::util::TimeUtil;
  const int64_t seconds = spec.deadline().seconds();
  const int32_t nanos = spec.deadline().nanos();
  if (seconds < TimeUtil::kTimestampMinSeconds || seconds > TimeUtil::kTimestampMaxSeconds ||
      nanos < 0 || nanos > 999'999'999) {
    violations.push_back({"spec.deadline", "is no time between the years 1 and 9999"});
  } else if (ToTime(spec.deadline()) <= absl::Now()) {
    violations.push_back(
        {"spec.deadline",
         absl::StrCat("is ", TimeUtil::ToString(spec.deadline()), ", which has passed; it is ",
                      TimeUtil::ToString(NowTimestamp()), " now")});
  }
}

}  // namespace

absl::StatusOr<SearchSpec> CheckJobRequest(const v1::CreateJobRequest& request,
                                           const Converter& converter, const Limits& limits,
                                           const std::function<bool()>& is_repeat) {
  FieldViolations violations;
  if (!request.request_id().empty() && !IsUuid(request.request_id())) {
    violations.push_back(
        {"request_id", absl::StrCat("\"", request.request_id(), "\" is not a UUID")});
  }
  SearchSpec spec;
  if (request.has_spec()) {
    const size_t before = violations.size();
    CheckJobTexts(request.spec(), "spec", limits, violations);
    if (violations.size() > before) return InvalidFields(violations);
    spec = converter.ParseSpec(request.spec(), "spec", violations);
    CheckSearch(spec.options, "spec", limits, violations);
    CheckContexts(spec.objective, spec.options.tokens, "spec.contexts", limits, violations);
    // A repeat gets its job, whose deadline may have passed since.
    if (request.spec().has_deadline() && !is_repeat()) CheckDeadline(request.spec(), violations);
  } else {
    violations.push_back({"spec", "is required"});
  }
  if (!violations.empty()) return InvalidFields(violations);
  return spec;
}

}  // namespace epo
