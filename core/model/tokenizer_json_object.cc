#include "core/model/tokenizer_json_object.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/model/json_text.h"

namespace epo::tokenizer_json {
namespace {

// Twice the greatest vocabulary there is; keeps a wrong id from asking for gigabytes.
constexpr TokenId kMaxTokenId = (1 << 21) - 1;

absl::Status WrongType(const std::string& key, const char* expected, const Json& value) {
  return Bad(key, absl::StrCat("expected ", expected, ", got ", ShowJson(value)));
}

}  // namespace

absl::Status Bad(const std::string& key, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(key, ": ", what));
}

absl::StatusOr<TokenId> ReadId(const Json& value, const std::string& name) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxTokenId) {
    return Bad(name,
               absl::StrCat("expected an id from 0 to ", kMaxTokenId, ", got ", ShowJson(value)));
  }
  return value.get<TokenId>();
}

Object::Object(const Json& value, std::string name) : value_(&value), name_(std::move(name)) {}

absl::StatusOr<Object> Object::From(const Json& value, const std::string& name) {
  if (!value.is_object()) return WrongType(name, "an object", value);
  return Object(value, name);
}

std::string Object::Key(const std::string& key) const {
  return name_.empty() ? key : absl::StrCat(name_, ".", key);
}

absl::Status Object::CheckKeys(std::initializer_list<const char*> known) const {
  for (const auto& [key, value] : value_->items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return Bad(Key(QuoteJson(key)), "is not supported");
    }
  }
  return absl::OkStatus();
}

const Json* Object::Find(const std::string& key) const {
  const auto found = value_->find(key);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<const Json*> Object::Require(const std::string& key) const {
  const Json* value = Find(key);
  if (value == nullptr) return Bad(Key(key), "is missing");
  return value;
}

absl::StatusOr<std::string> Object::String(const std::string& key) const {
  absl::StatusOr<const Json*> value = Require(key);
  if (!value.ok()) return value.status();
  if (!(*value)->is_string()) return WrongType(Key(key), "a string", **value);
  return (*value)->get<std::string>();
}

absl::StatusOr<bool> Object::Bool(const std::string& key) const {
  absl::StatusOr<const Json*> value = Require(key);
  if (!value.ok()) return value.status();
  if (!(*value)->is_boolean()) return WrongType(Key(key), "true or false", **value);
  return (*value)->get<bool>();
}

absl::StatusOr<bool> Object::BoolOr(const std::string& key, bool absent) const {
  return Find(key) == nullptr ? absent : Bool(key);
}

absl::Status Object::Only(const std::string& key, std::initializer_list<Json> allowed) const {
  const Json* value = Find(key);
  if (value == nullptr || std::find(allowed.begin(), allowed.end(), *value) != allowed.end()) {
    return absl::OkStatus();
  }
  return Bad(Key(key), absl::StrCat(ShowJson(*value), " is not supported"));
}

}  // namespace epo::tokenizer_json
