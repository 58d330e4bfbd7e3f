#include "server/job_request.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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

// "constraints.banned_texts[0]" out of what is wrong with a prompt; empty where that is no
// constraint's doing.
std::string RuleOf(const std::string& description) {
  const size_t begin = description.find("constraints.");
  if (begin == std::string::npos) return "";
  const auto named = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("._[]", c);
  };
  const auto end = std::find_if_not(description.begin() + begin, description.end(), named);
  return std::string(description.begin() + begin, end);
}

// What is wrong with initial prompts, one violation for the job that they come from.
void BlameInitialJob(const std::string& id, const v1::JobSpec& spec, FieldViolations& violations) {
  const std::string prefix = "spec.initial_prompts[";
  // A point may stand in several slots.
  std::set<std::string> points;
  std::map<std::string, std::set<std::string>> broken;
  std::string other;
  for (const v1::Prompt& prompt : spec.initial_prompts()) points.insert(prompt.SerializeAsString());
  for (const FieldViolation& violation : violations) {
    absl::string_view rest = violation.field;
    int slot = 0;
    if (!absl::ConsumePrefix(&rest, prefix) || !absl::ConsumeSuffix(&rest, "]") ||
        !absl::SimpleAtoi(rest, &slot)) {
      continue;
    }
    const std::string rule = RuleOf(violation.description);
    broken[rule].insert(spec.initial_prompts(slot).SerializeAsString());
    if (rule.empty() && other.empty()) other = violation.description;
  }
  if (broken.empty()) return;
  std::string what = absl::StrCat("names the job \"", id, "\", whose frontier does not do: of ",
                                  points.size(), " points ");
  const char* separator = "";
  for (const auto& [rule, by] : broken) {
    absl::StrAppend(&what, separator, by.size());
    if (rule.empty()) {
      absl::StrAppend(&what, " cannot be used (one ", other, ")");
    } else {
      absl::StrAppend(&what, by.size() == 1 ? " breaks " : " break ", rule);
    }
    separator = ", ";
  }
  std::erase_if(violations, [&](const FieldViolation& violation) {
    return absl::StartsWith(violation.field, prefix);
  });
  violations.push_back({"spec.initial_job", std::move(what)});
}

}  // namespace

void CheckRequestId(const std::string& request_id, FieldViolations& violations) {
  if (request_id.empty() || IsUuid(request_id)) return;
  violations.push_back({"request_id", absl::StrCat("\"", request_id, "\" is not a UUID")});
}

SearchSpec CheckJobSpec(const v1::JobSpec& spec, const std::string& path,
                        const Converter& converter, const Limits& limits,
                        FieldViolations& violations) {
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
                                           const Converter& converter, const Limits& limits,
                                           const std::string& initial_job) {
  FieldViolations violations;
  CheckRequestId(request.request_id(), violations);
  SearchSpec spec;
  if (request.has_spec()) {
    spec = CheckJobSpec(request.spec(), "spec", converter, limits, violations);
  } else {
    violations.push_back({"spec", "is required"});
  }
  if (!initial_job.empty()) BlameInitialJob(initial_job, request.spec(), violations);
  if (!violations.empty()) return InvalidFields(violations);
  return spec;
}

}  // namespace epo
