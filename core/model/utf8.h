// UTF-8 as Python's bytes.decode("utf-8", errors="replace") reads it.
#ifndef EPO_CORE_MODEL_UTF8_H_
#define EPO_CORE_MODEL_UTF8_H_

#include <string>
#include <string_view>

namespace epo {

// Whether all of `text` is well-formed UTF-8 (no surrogates, no overlong forms, nothing past
// U+10FFFF).
bool IsValidUtf8(std::string_view text);

// `text` with each maximal ill-formed subsequence replaced by U+FFFD; the same bytes when it is
// well-formed.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace epo

#endif  // EPO_CORE_MODEL_UTF8_H_
