#include "core/model/chat_template.h"

#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace epo {

absl::StatusOr<std::string> ReadChatTemplate(const std::filesystem::path& dir) {
  using Json = nlohmann::json;
  if (std::ifstream jinja(dir / "chat_template.jinja", std::ios::binary); jinja) {
    return std::string(std::istreambuf_iterator<char>(jinja), {});
  }
  const std::filesystem::path path = dir / "tokenizer_config.json";
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return "";
  const auto bad = [&](const char* what) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", what));
  };
  const Json json = Json::parse(stream, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return bad("not a JSON object");
  if (!json.contains("chat_template") || json["chat_template"].is_null()) return "";
  const Json& found = json["chat_template"];
  if (found.is_string()) return found.get<std::string>();
  if (!found.is_array()) return bad("'chat_template' must be a string or a list");
  for (const Json& entry : found) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") ||
        !entry["template"].is_string()) {
      return bad("an entry of 'chat_template' lacks its name or its template");
    }
    if (entry["name"] == "default") return entry["template"].get<std::string>();
  }
  return "";
}

}  // namespace epo
