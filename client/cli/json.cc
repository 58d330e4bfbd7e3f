#include "client/cli/json.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <google/protobuf/timestamp.pb.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "client/cli/text.h"
#include "client/cli/time.h"
#include "epo/v1/frontier.pb.h"
#include "google/rpc/status.pb.h"

namespace epo::cli {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Json = nlohmann::ordered_json;

// The double that prints as the float's shortest decimal: the JSON then shows 0.1, not
// 0.10000000149011612.
Json FloatJson(float value) {
  if (!std::isfinite(value)) return nullptr;
  char decimal[32];
  const auto end = std::to_chars(decimal, decimal + sizeof(decimal), value).ptr;
  double shortest = 0;
  std::from_chars(decimal, end, shortest);
  return shortest;
}

Json DoubleJson(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// One value of a field: element `index` of a repeated one, or the value itself for index -1.
Json FieldJson(const Message& message, const FieldDescriptor* field, int index) {
  const auto* reflection = message.GetReflection();
  const bool repeated = index >= 0;
  switch (field->cpp_type()) {
#define EPO_GET(TYPE)                                              \
  (repeated ? reflection->GetRepeated##TYPE(message, field, index) \
            : reflection->Get##TYPE(message, field))
    case FieldDescriptor::CPPTYPE_INT32:
      return EPO_GET(Int32);
    case FieldDescriptor::CPPTYPE_INT64:
      return EPO_GET(Int64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return EPO_GET(UInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return EPO_GET(UInt64);
    case FieldDescriptor::CPPTYPE_BOOL:
      return EPO_GET(Bool);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return FloatJson(EPO_GET(Float));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return DoubleJson(EPO_GET(Double));
    case FieldDescriptor::CPPTYPE_ENUM: {
      // A number that this client has no name for comes from a newer server: shown as it is.
      const int number = EPO_GET(EnumValue);
      const auto* value = field->enum_type()->FindValueByNumber(number);
      return value == nullptr ? Json(number) : Json(value->name());
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text = EPO_GET(String);
      return field->type() == FieldDescriptor::TYPE_BYTES ? absl::Base64Escape(text) : text;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(EPO_GET(Message));
#undef EPO_GET
  }
  return nullptr;
}

bool IsPlain(const Json& value) { return !value.is_structured(); }

void PrettyTo(const Json& value, int indent, std::string& out) {
  const bool plain_list = value.is_array() && std::all_of(value.begin(), value.end(), IsPlain);
  if (!value.is_structured() || value.empty() || plain_list) {
    out += Compact(value);
    return;
  }
  const std::string margin(indent + 2, ' ');
  out += value.is_array() ? "[" : "{";
  bool first = true;
  for (auto it = value.begin(); it != value.end(); ++it) {
    absl::StrAppend(&out, first ? "\n" : ",\n", margin);
    first = false;
    if (value.is_object()) absl::StrAppend(&out, Compact(it.key()), ": ");
    PrettyTo(*it, indent + 2, out);
  }
  absl::StrAppend(&out, "\n", std::string(indent, ' '), value.is_array() ? "]" : "}");
}

}  // namespace

Json ToJson(const Message& message) {
  const auto* descriptor = message.GetDescriptor();
  if (descriptor == google::protobuf::Timestamp::descriptor()) {
    return FormatRfc3339(static_cast<const google::protobuf::Timestamp&>(message));
  }
  if (descriptor == v1::TokenIds::descriptor()) {
    const auto& ids = static_cast<const v1::TokenIds&>(message).ids();
    return Json(std::vector<int32_t>(ids.begin(), ids.end()));
  }
  if (descriptor == google::rpc::Status::descriptor()) {
    const auto& status = static_cast<const google::rpc::Status&>(message);
    return {{"code", status.code()}, {"message", status.message()}};
  }
  Json json = Json::object();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const auto* field = descriptor->field(i);
    const auto* reflection = message.GetReflection();
    if (field->is_repeated()) {
      Json list = Json::array();
      const int size = reflection->FieldSize(message, field);
      for (int k = 0; k < size; ++k) list.push_back(FieldJson(message, field, k));
      json[field->name()] = std::move(list);
    } else if (field->has_presence() && !reflection->HasField(message, field)) {
      if (field->real_containing_oneof() == nullptr) json[field->name()] = nullptr;
    } else {
      json[field->name()] = FieldJson(message, field, -1);
    }
  }
  return json;
}

std::string Compact(const Json& value) {
  return EscapeJson(value.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace));
}

std::string Pretty(const Json& value) {
  std::string out;
  PrettyTo(value, 0, out);
  return out;
}

}  // namespace epo::cli
