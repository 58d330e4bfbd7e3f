// The tokens that are found in the text as they stand, before byte-pair encoding: `added_tokens` of
// tokenizer.json.
#ifndef EPO_CORE_MODEL_TOKENIZER_ADDED_H_
#define EPO_CORE_MODEL_TOKENIZER_ADDED_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/base/types.h"

namespace epo {

struct AddedToken {
  TokenId id;
  std::string content;  // valid UTF-8, not empty
  // Shown to and hidden from people as markup; plays no part in matching.
  bool special;
  // Looked for after those that are not, in what they leave.
  bool normalized;
  // Takes the white space to its left (right) with it.
  bool lstrip;
  bool rstrip;
};

// Finds a set of added tokens in a text: the leftmost first, the longest of those that begin at the
// same place, none overlapping another. Thread-safe: immutable.
class AddedTokenFinder {
 public:
  // One added token, or the text between two of them.
  struct Part {
    std::string_view text;  // not empty, but for a token
    TokenId id;             // -1 for text
  };

  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  // The parts of `text`, valid UTF-8, in order.
  std::vector<Part> Split(std::string_view text) const;

 private:
  static constexpr int kNoToken = -1;

  // The index of the longest token that `text` begins with; kNoToken if none.
  int LongestAt(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  // A trie over bytes: node 0 is the root; child of (node << 8 | byte).
  absl::flat_hash_map<uint64_t, uint32_t> children_;
  std::vector<int> token_of_node_;
  std::array<bool, 256> begins_token_{};
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_TOKENIZER_ADDED_H_
