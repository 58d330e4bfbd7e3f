// Patterns that a user gives for texts. PCRE2's.
#ifndef EPO_CORE_MODEL_TEXT_PATTERN_H_
#define EPO_CORE_MODEL_TEXT_PATTERN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"

// PCRE2's own type, so that pcre2.h stays out of this header.
struct pcre2_real_code_8;

namespace epo {

// Thread-safe: immutable.
class TextPattern {
 public:
  // A regular expression in PCRE2's (Perl's) syntax over UTF-8. INVALID_ARGUMENT says what is wrong
  // with it and where.
  static absl::StatusOr<TextPattern> Regex(std::string_view pattern);

  // `text` itself, in upper or lower case. INVALID_ARGUMENT if it is not UTF-8.
  static absl::StatusOr<TextPattern> AnyCase(std::string_view text);

  // Where a match lies: bytes [begin, end).
  struct Match {
    size_t begin = 0;
    size_t end = 0;
  };

  // The first match in `text`, which is valid UTF-8. RESOURCE_EXHAUSTED when `steps` steps of the
  // matcher do not tell; how many a text takes is the same on every machine.
  absl::StatusOr<std::optional<Match>> Find(std::string_view text, uint32_t steps) const;

  // For what AnyCase() gave, whose steps are as many as the text has bytes at the most.
  std::optional<Match> Find(std::string_view text) const;

 private:
  explicit TextPattern(std::shared_ptr<const pcre2_real_code_8> code) : code_(std::move(code)) {}
  static absl::StatusOr<TextPattern> Compile(std::string_view pattern, uint32_t options);

  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_TEXT_PATTERN_H_
