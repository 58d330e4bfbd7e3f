// Regular expressions of tokenizer.json, written for Oniguruma, as PCRE2 patterns (with UTF and
// UCP) that match the same.
#ifndef EPO_CORE_MODEL_TOKENIZER_PATTERN_H_
#define EPO_CORE_MODEL_TOKENIZER_PATTERN_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace epo {

// How the ByteLevel pre-tokenizer splits with use_regex, as tokenizer.json would write it.
inline constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Translates `pattern`, valid UTF-8. Letters, numbers and white space are those of the Unicode
// version that `tokenizers` knows, not those of the PCRE2 at hand. Supported: literals, | ( ) (?: )
// (?i: ) (?= ) (?! ), ? * + {n} {n,} {n,m}, classes, \p{L} \P{L} \p{N} \P{N} \s \S \r \n \t and
// escaped punctuation. INVALID_ARGUMENT names anything else, and a repeated group that itself
// repeats or has alternatives, which could take exponential time.
absl::StatusOr<std::string> TranslatePattern(std::string_view pattern);

// PCRE2 patterns for what the Digits pre-tokenizer isolates: each numeric character, or each run of
// them.
std::string DigitsPattern(bool individual);

}  // namespace epo

#endif  // EPO_CORE_MODEL_TOKENIZER_PATTERN_H_
