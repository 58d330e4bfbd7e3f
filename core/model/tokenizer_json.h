// What a tokenizer.json says, checked.
#ifndef EPO_CORE_MODEL_TOKENIZER_JSON_H_
#define EPO_CORE_MODEL_TOKENIZER_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/types.h"
#include "core/model/tokenizer_added.h"
#include "core/model/tokenizer_bpe.h"
#include "core/model/tokenizer_split.h"

namespace epo {

struct TokenizerSpec {
  // By id, spelled in the byte-level alphabet; `exists` tells an empty token from none.
  struct Token {
    std::string text;
    bool exists = false;
  };
  std::vector<Token> vocabulary;
  BpeSpec bpe;
  // In the order of the file; their ids and contents are unique, and where a content is in the
  // vocabulary the ids agree.
  std::vector<AddedToken> added_tokens;
  // Applied one after another to each text between added tokens.
  std::vector<Splitter> splitters;
};

// Reads the text of a tokenizer.json. INVALID_ARGUMENT names the key of what is malformed,
// contradictory or not supported: nothing that could change an id is ignored.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(const std::string& text);

}  // namespace epo

#endif  // EPO_CORE_MODEL_TOKENIZER_JSON_H_
