// Byte-pair encoding: the merges that turn the bytes of a word into tokens.
#ifndef EPO_CORE_MODEL_TOKENIZER_BPE_H_
#define EPO_CORE_MODEL_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/base/types.h"

namespace epo {

struct MergeRule {
  TokenId left;
  TokenId right;
  TokenId result;
};

struct BpeSpec {
  // The token of each byte by itself; -1 where there is none. Such a byte becomes `unknown`, or
  // nothing when there is no `unknown`.
  std::array<TokenId, 256> byte_tokens;
  std::optional<TokenId> unknown;
  // A run of bytes without a token becomes one `unknown` instead of one each.
  bool fuse_unknown = false;
  // In order of priority; no pair twice.
  std::vector<MergeRule> merges;
  // Words that are tokens as they stand, whatever the merges say (`ignore_merges`), by their bytes.
  absl::flat_hash_map<std::string, TokenId> whole_words;
};

// Thread-safe: immutable.
class Bpe {
 public:
  // Working memory, kept from word to word so that encoding a word allocates nothing. For one
  // thread at a time.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      TokenId token;  // -1 once it is merged into its left neighbour
      uint32_t previous;
      uint32_t next;
    };
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> queue_;
  };

  explicit Bpe(BpeSpec spec);

  // Appends the tokens of `word`, fewer than 2^32 - 1 bytes, to `ids`. Takes O(n log n) for n
  // bytes.
  void Encode(std::string_view word, Scratch& scratch, Prompt& ids) const;

 private:
  struct Merge {
    uint32_t rank;
    TokenId result;
  };

  const Merge* Find(TokenId left, TokenId right) const;
  void SplitIntoBytes(std::string_view word, Scratch& scratch) const;

  std::array<TokenId, 256> byte_tokens_;
  std::optional<TokenId> unknown_;
  bool fuse_unknown_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  absl::flat_hash_map<std::string, TokenId> whole_words_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_TOKENIZER_BPE_H_
