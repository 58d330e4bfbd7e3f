#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/model/tokenizer_split.h"

#include <pcre2.h>

#include <cstdint>
#include <limits>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace epo {

void Splitter::Scratch::Free::operator()(pcre2_real_match_data_8* data) const {
  pcre2_match_data_free(data);
}

void Splitter::Scratch::Free::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}

Splitter::Scratch::Scratch()
    : match_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  if (match_ == nullptr || context_ == nullptr) throw std::bad_alloc();
  // Patterns that take exponential time are refused when they are compiled, so the only limit on a
  // long text is memory.
  constexpr uint32_t kUnlimited = std::numeric_limits<uint32_t>::max();
  pcre2_set_match_limit(context_.get(), kUnlimited);
  pcre2_set_depth_limit(context_.get(), kUnlimited);
  pcre2_set_heap_limit(context_.get(), kUnlimited);
}

absl::StatusOr<Splitter> Splitter::Compile(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(absl::StrCat("the regular expression is malformed: ",
                                                   reinterpret_cast<const char*>(message)));
  }
  std::shared_ptr<const pcre2_code> owner(
      code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); });
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    return absl::InvalidArgumentError(
        "a regular expression that matches the empty string is not supported");
  }
  // Where there is no JIT for the machine, matching falls back to the interpreter by itself.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Splitter(std::move(owner));
}

Splitter::Match Splitter::Find(std::string_view text, size_t start, Scratch& scratch) const {
  const auto match = [&](uint32_t options) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                       PCRE2_NO_UTF_CHECK | options, scratch.match_.get(), scratch.context_.get());
  };
  int count = match(0);
  // The JIT's stack is of fixed size; the interpreter's memory grows.
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = match(PCRE2_NO_JIT);
  if (count == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
  if (count < 0) throw std::bad_alloc();
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.match_.get());
  return {offsets[0], offsets[1]};
}

}  // namespace epo
