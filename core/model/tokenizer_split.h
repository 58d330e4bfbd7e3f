// Splits text into the words that byte-pair encoding works on.
#ifndef EPO_CORE_MODEL_TOKENIZER_SPLIT_H_
#define EPO_CORE_MODEL_TOKENIZER_SPLIT_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

// PCRE2's own types, so that pcre2.h stays out of this header.
struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace epo {

// One regular expression, each match of which is a piece of its own, as is what lies between two
// matches. Thread-safe: immutable.
class Splitter {
 public:
  // Working memory; for one thread at a time.
  class Scratch {
   public:
    Scratch();

   private:
    friend class Splitter;
    struct Free {
      void operator()(pcre2_real_match_data_8* data) const;
      void operator()(pcre2_real_match_context_8* context) const;
    };
    std::unique_ptr<pcre2_real_match_data_8, Free> match_;
    std::unique_ptr<pcre2_real_match_context_8, Free> context_;
  };

  // `pattern` is a PCRE2 pattern. INVALID_ARGUMENT if it is malformed or may match nothing.
  static absl::StatusOr<Splitter> Compile(const std::string& pattern);

  // Calls on_piece(std::string_view) for each piece of `text`, valid UTF-8, in order; none is
  // empty. Each sees only the text given, not what stood around it. on_piece may use `scratch`
  // itself.
  template <typename OnPiece>
  void Split(std::string_view text, Scratch& scratch, OnPiece&& on_piece) const {
    size_t done = 0;
    while (done < text.size()) {
      const Match match = Find(text, done, scratch);
      if (match.begin > done) on_piece(text.substr(done, match.begin - done));
      if (match.end > match.begin) on_piece(text.substr(match.begin, match.end - match.begin));
      done = match.end;
    }
  }

 private:
  struct Match {
    size_t begin;
    size_t end;
  };

  explicit Splitter(std::shared_ptr<const pcre2_real_code_8> code) : code_(std::move(code)) {}

  // The first match from `start` on; empty, at the end of `text`, if there is none.
  Match Find(std::string_view text, size_t start, Scratch& scratch) const;

  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_TOKENIZER_SPLIT_H_
