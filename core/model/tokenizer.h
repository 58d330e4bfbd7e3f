// A checkpoint's tokenizer.json: byte-level BPE, id for id equal to Hugging Face `tokenizers`.
#ifndef EPO_CORE_MODEL_TOKENIZER_H_
#define EPO_CORE_MODEL_TOKENIZER_H_

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/types.h"

namespace epo {

// Thread-safe: immutable once loaded.
class Tokenizer {
 public:
  // Reads `path`. INVALID_ARGUMENT names the file and the feature for everything in it that is not
  // supported (a normalizer, a pre-tokenizer or a model of another kind, dropout, ...) or
  // malformed; NOT_FOUND when there is no such file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& path);

  virtual ~Tokenizer() = default;

  // The ids of `text` with no special tokens added, as `tokenizers` gives with
  // add_special_tokens=False; text equal to an added token becomes that token. Bytes that are not
  // UTF-8 are taken as U+FFFD, as Python's errors="replace" would.
  virtual Prompt Encode(std::string_view text) const = 0;

  // The bytes of one token; empty for an id that has no token (negative, past the last, or a hole).
  virtual std::string_view TokenBytes(TokenId id) const = 0;

  // The bytes of `ids` one after another, special tokens included. Total: any ids decode.
  std::string DecodeBytes(const Prompt& ids) const;

  // The same as text: each maximal invalid UTF-8 sequence is shown as U+FFFD.
  std::string Decode(const Prompt& ids) const;

  // Whether `id` stands for a token at all.
  virtual bool IsToken(TokenId id) const = 0;

  // Whether `id` is a special token (<|endoftext|>, <|im_start|>, ...).
  virtual bool IsSpecial(TokenId id) const = 0;

  // One past the greatest id that has a token.
  virtual int vocab_size() const = 0;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_TOKENIZER_H_
