#include "core/model/allowed_tokens.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/model/weights.h"

namespace epo {

std::shared_ptr<const AllowedTokens> MakeAllowedTokens(const Model& model, bool allow_special) {
  const Tokenizer& tokenizer = model.tokenizer();
  const int64_t rows = model.config().vocab_size;
  auto allowed = std::make_shared<AllowedTokens>();
  allowed->mask.assign(rows, 0);
  const auto end = static_cast<TokenId>(std::min<int64_t>(rows, tokenizer.vocab_size()));
  for (TokenId id = 0; id < end; ++id) {
    if (!tokenizer.IsToken(id) || (tokenizer.IsSpecial(id) && !allow_special)) continue;
    allowed->ids.push_back(id);
    allowed->mask[id] = 1;
  }
  // Waits for the copy, since whoever reads it may use another stream.
  allowed->forbidden = std::make_shared<const at::Tensor>(
      at::from_blob(allowed->mask.data(), {rows}, at::kByte).eq(0).to(model.weights().device()));
  return allowed;
}

}  // namespace epo
