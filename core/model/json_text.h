// Pieces of JSON documents in error messages: on one line, and short whatever the document holds.
#ifndef EPO_CORE_MODEL_JSON_TEXT_H_
#define EPO_CORE_MODEL_JSON_TEXT_H_

#include <string>

#include "nlohmann/json.hpp"

namespace epo {

// `text`, valid UTF-8, quoted; cut when it is long.
std::string QuoteJson(const std::string& text);

// A value. An object, an array of arrays or objects, and a long array are shown by their type only:
// nlohmann's dump() recurses, and would run out of stack on a deep one.
std::string ShowJson(const nlohmann::json& value);

}  // namespace epo

#endif  // EPO_CORE_MODEL_JSON_TEXT_H_
