// Checked reads of a JSON document, whose errors name the key: "model.vocab: expected an object,
// got 3".
#ifndef EPO_CORE_MODEL_TOKENIZER_JSON_OBJECT_H_
#define EPO_CORE_MODEL_TOKENIZER_JSON_OBJECT_H_

#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/types.h"
#include "nlohmann/json.hpp"

namespace epo::tokenizer_json {

using Json = nlohmann::json;

// INVALID_ARGUMENT about `key`.
absl::Status Bad(const std::string& key, const std::string& what);

// `value`, called `name` in errors, as a token's id.
absl::StatusOr<TokenId> ReadId(const Json& value, const std::string& name);

// An object of the document together with the name to call it by; the document's root has none.
// Refers to the document, which outlives it. Everywhere, a null value counts as absent.
class Object {
 public:
  static absl::StatusOr<Object> From(const Json& value, const std::string& name);

  // What `key` of this object is called.
  std::string Key(const std::string& key) const;

  // Fails at a key that is not in `known`: it could mean anything.
  absl::Status CheckKeys(std::initializer_list<const char*> known) const;

  // Null when absent.
  const Json* Find(const std::string& key) const;

  absl::StatusOr<const Json*> Require(const std::string& key) const;
  absl::StatusOr<std::string> String(const std::string& key) const;
  absl::StatusOr<bool> Bool(const std::string& key) const;
  absl::StatusOr<bool> BoolOr(const std::string& key, bool absent) const;

  // Fails unless the key is absent or has one of the values given.
  absl::Status Only(const std::string& key, std::initializer_list<Json> allowed) const;

 private:
  Object(const Json& value, std::string name);

  const Json* value_;
  std::string name_;
};

}  // namespace epo::tokenizer_json

#endif  // EPO_CORE_MODEL_TOKENIZER_JSON_OBJECT_H_
