#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/model/text_pattern.h"

#include <pcre2.h>

#include <limits>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// Of what one match may hold while it backtracks.
constexpr uint32_t kHeapKibibytes = 4096;

// What a match works with; for one thread, which needs it for thousands of short texts in a row.
struct Scratch {
  Scratch()
      : data(pcre2_match_data_create(1, nullptr)), context(pcre2_match_context_create(nullptr)) {
    if (data == nullptr || context == nullptr) throw std::bad_alloc();
    pcre2_set_heap_limit(context, kHeapKibibytes);
  }
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data* const data;
  pcre2_match_context* const context;
};

}  // namespace

absl::StatusOr<TextPattern> TextPattern::Compile(std::string_view pattern, uint32_t options) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Not compiled to machine code: it would count its steps in another way.
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | options, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrCat(reinterpret_cast<const char*>(message), ", at byte ", offset));
  }
  return TextPattern(std::shared_ptr<const pcre2_code>(
      code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); }));
}

absl::StatusOr<TextPattern> TextPattern::Regex(std::string_view pattern) {
  return Compile(pattern, PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
}

absl::StatusOr<TextPattern> TextPattern::AnyCase(std::string_view text) {
  return Compile(text, PCRE2_LITERAL | PCRE2_CASELESS);
}

absl::StatusOr<std::optional<TextPattern::Match>> TextPattern::Find(std::string_view text,
                                                                    uint32_t steps) const {
  thread_local const Scratch scratch;
  pcre2_set_match_limit(scratch.context, steps);
  const int count = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                0, PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
  // What is left are limits: the text is valid and nothing else can go wrong.
  if (count < 0) return absl::ResourceExhaustedError("the match takes too many steps");
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
  return Match{offsets[0], offsets[1]};
}

std::optional<TextPattern::Match> TextPattern::Find(std::string_view text) const {
  const auto match = Find(text, std::numeric_limits<uint32_t>::max());
  return match.ok() ? *match : std::nullopt;
}

}  // namespace epo
