#include "core/model/json_text.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace epo {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostBytes = 60;

}  // namespace

std::string QuoteJson(const std::string& text) {
  std::string quoted = Json(text).dump(-1, ' ', /*ensure_ascii=*/false);
  if (quoted.size() <= kMostBytes) return quoted;
  size_t end = kMostBytes;
  while ((static_cast<uint8_t>(quoted[end]) & 0xC0) == 0x80) --end;
  return quoted.substr(0, end) + "...\"";
}

std::string ShowJson(const Json& value) {
  if (value.is_string()) return QuoteJson(value.get_ref<const std::string&>());
  const bool flat =
      !value.is_object() &&
      std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_primitive(); });
  if (!flat) return value.type_name();
  const std::string text = value.dump();
  return text.size() <= kMostBytes ? text : value.type_name();
}

}  // namespace epo
