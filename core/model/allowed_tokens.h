// The tokens that a search may draw and propose.
#ifndef EPO_CORE_MODEL_ALLOWED_TOKENS_H_
#define EPO_CORE_MODEL_ALLOWED_TOKENS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/types.h"
#include "core/model/model.h"

namespace at {
class Tensor;
}

namespace epo {

// Immutable, thread-safe, shared by the jobs that use it.
struct AllowedTokens {
  // Ascending. When every id below the tokenizer's size is allowed, ids[i] == i, so that a uniform
  // draw of an index is the reference implementation's draw of an id.
  std::vector<TokenId> ids;
  // One byte for each of the model's embedding rows: 1 where allowed.
  std::vector<uint8_t> mask;
  // Where it is 0, on the model's device; only the model that they were made for ranks by it.
  std::shared_ptr<const at::Tensor> forbidden;
};

// `ids`, ascending and each below the model's vocabulary.
std::shared_ptr<const AllowedTokens> AllowTokens(const Model& model, std::vector<TokenId> ids);

// Every id that has a token and an embedding row; special tokens only if `allow_special`.
std::shared_ptr<const AllowedTokens> MakeAllowedTokens(const Model& model, bool allow_special);

}  // namespace epo

#endif  // EPO_CORE_MODEL_ALLOWED_TOKENS_H_
