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
void CheckDeadline(const v1::JobSpec& spec, const std::string& path, FieldViolations& violations) {
  using google::protobuf::util::TimeUtil;
  const int64_t seconds = spec.deadline().seconds();
  const int32_t nanos = spec.deadline().nanos();
  if (seconds < TimeUtil::kTimestampMinSeconds || seconds > TimeUtil::kTimestampMaxSeconds ||
      nanos < 0 || nanos > 999'999'999) {
    violations.push_back({path + ".deadline", "is no time between the years 1 and 9999"});
  } else if (ToTime(spec.deadline()) <= absl::Now()) {
    violations.push_back(
        {path + ".deadline",
         absl::StrCat("is ", TimeUtil::ToString(spec.deadline()), ", which has passed; it is ",
                      TimeUtil::ToString(NowTimestamp()), " now")});
  }
}

}  // namespace

void CheckRequestId(const std::string& request_id, FieldViolations& violations) {
  if (request_id.empty() || IsUuid(request_id)) return;
  violations.push_back({"request_id", absl::StrCat("\"", request_id, "\" is not a UUID")});
}

SearchSpec CheckJobSpec(const v1::JobSpec& spec, const std::string& path,
                        const Converter& converter, const Limits& limits, FieldViolations& violations) {
  const size_t before = violations.size();
  CheckJobTexts(spec, path, limits, violations);
  if (violations.size() > before) return {};
  SearchSpec search = converter.ParseSpec(spec, path, violations);
  CheckSearch(search.options, path, limits, violations);
  CheckContexts(search.objective, search.options.tokens, path + ".contexts", limits, violations);
  if (spec.has_deadline()) CheckDeadline(spec, path, violations);
  return search;
}

absl::StatusOr<SearchSpec> CheckJobRequest(const v1::CreateJobRequest& request,
                                           const Converter& converter, const Limits& limits) {
  FieldViolations violations;
  CheckRequestId(request.request_id(), violations);
  SearchSpec spec;
  if (request.has_spec()) {
    spec = CheckJobSpec(request.spec(), "spec", converter, limits, violations);
  } else {
    violations.push_back({"spec", "is required"});
  }
  if (!violations.empty()) return InvalidFields(violations);
  return spec;
}

}  // namespace epo
