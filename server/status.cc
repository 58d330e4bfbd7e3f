#include "server/status.h"

#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/any.pb.h"
#include "google/rpc/error_details.pb.h"

namespace epo {
namespace {

constexpr char kTypeUrlPrefix[] = "type.googleapis.com/";
// Together with the message well under 8 KiB, base64 and percent-encoding included.
constexpr size_t kMaxViolationBytes = 3000;
constexpr size_t kMaxMessageBytes = 1000;

template <class Detail>
std::string TypeUrl() {
  return kTypeUrlPrefix + Detail::descriptor()->full_name();
}

template <class Detail>
void Attach(absl::Status& status, const Detail& detail) {
  status.SetPayload(TypeUrl<Detail>(), absl::Cord(detail.SerializeAsString()));
}

std::string Shorten(std::string text) {
  if (text.size() <= kMaxMessageBytes) return text;
  size_t end = kMaxMessageBytes;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not within a UTF-8 sequence
  return text.substr(0, end) + "...";
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view message, std::string_view reason,
                       const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, View(message));
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  info.mutable_metadata()->insert(metadata.begin(), metadata.end());
  Attach(status, info);
  return status;
}

absl::Status InvalidFields(const FieldViolations& violations) {
  google::rpc::BadRequest bad_request;
  std::string fields;
  size_t bytes = 0;
  for (const FieldViolation& violation : violations) {
    std::string description = Shorten(violation.description);
    bytes += 2 * violation.field.size() + description.size() + 16;
    if (bytes > kMaxViolationBytes && bad_request.field_violations_size() > 0) break;
    auto* entry = bad_request.add_field_violations();
    entry->set_field(violation.field);
    entry->set_description(std::move(description));
    absl::StrAppend(&fields, fields.empty() ? "" : ",", violation.field);
  }
  const size_t listed = bad_request.field_violations_size();
  const auto& first = bad_request.field_violations(0);
  std::string message = absl::StrCat(first.field(), ": ", first.description());
  std::map<std::string, std::string> metadata = {{"fields", fields}};
  if (violations.size() > 1) {
    const std::string others = absl::StrCat(violations.size() - 1);
    absl::StrAppend(&message, " (and ", others, " more bad field",
                    violations.size() > 2 ? "s)" : ")");
    metadata["others"] = others;
  }
  if (listed < violations.size()) {
    auto* entry = bad_request.add_field_violations();
    entry->set_field(violations[listed].field);
    entry->set_description(
        absl::StrCat("and ", violations.size() - listed, " more bad fields from here on"));
  }
  absl::Status status =
      MakeError(absl::StatusCode::kInvalidArgument, message, "INVALID_FIELD", metadata);
  Attach(status, bad_request);
  return status;
}

absl::Status WithRetry(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(delay));
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(delay % absl::Seconds(1))));
  Attach(status, retry);
  return status;
}

absl::Status JobNotFound(std::string_view id) {
  return MakeError(absl::StatusCode::kNotFound, absl::StrCat("there is no job \"", View(id), "\""),
                   "JOB_NOT_FOUND", {{"id", std::string(id)}});
}

absl::Status SweepNotFound(std::string_view id) {
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("there is no sweep \"", View(id), "\""), "SWEEP_NOT_FOUND",
                   {{"id", std::string(id)}});
}

absl::Status RequestIdReused(std::string_view request_id) {
  const std::string id(request_id);
  return MakeError(
      absl::StatusCode::kAlreadyExists,
      absl::StrCat("request_id \"", id, "\" was used for another request; take a new UUID"),
      "REQUEST_ID_REUSED", {{"request_id", id}});
}

absl::Status ShuttingDown() {
  return WithRetry(
      MakeError(absl::StatusCode::kUnavailable, "the server is shutting down", "SHUTTING_DOWN"),
      absl::Seconds(5));
}

std::string Describe(const absl::Status& status) {
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status out;
  if (status.ok()) return out;
  out.set_code(static_cast<int>(status.code()));
  out.set_message(Shorten(std::string(status.message())));
  const std::string info_url = TypeUrl<google::rpc::ErrorInfo>();
  if (!status.GetPayload(info_url).has_value()) {
    google::rpc::ErrorInfo info;
    info.set_reason(absl::StatusCodeToString(status.code()));
    info.set_domain(kErrorDomain);
    out.add_details()->PackFrom(info);
  }
  status.ForEachPayload([&out](absl::string_view type_url, const absl::Cord& value) {
    google::protobuf::Any* detail = out.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(value));
  });
  return out;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(rpc.code()), rpc.message(),
                      rpc.SerializeAsString());
}

}  // namespace epo
