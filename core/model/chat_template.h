// The template by which a checkpoint's conversations become text.
#ifndef EPO_CORE_MODEL_CHAT_TEMPLATE_H_
#define EPO_CORE_MODEL_CHAT_TEMPLATE_H_

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace epo {

// The Jinja source in `dir`/chat_template.jinja, else under "chat_template" of
// `dir`/tokenizer_config.json (of several the one named "default"); empty when there is none.
// INVALID_ARGUMENT names the file when it is not what transformers would read.
absl::StatusOr<std::string> ReadChatTemplate(const std::filesystem::path& dir);

}  // namespace epo

#endif  // EPO_CORE_MODEL_CHAT_TEMPLATE_H_
