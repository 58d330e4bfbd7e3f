#include "core/model/allowed_tokens.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "core/model/weights.h"

namespace epo {

std::shared_ptr<const AllowedTokens> AllowTokens(const Model& model, std::vector<TokenId> ids) {
  const int64_t rows = model.config().vocab_size;
  auto allowed = std::make_shared<AllowedTokens>();
  allowed->mask.assign(rows, 0);
  for (const TokenId id : ids) allowed->mask[id] = 1;
  allowed->ids = std::move(ids);
  // Waits for the copy, since whoever reads it may use another stream.
  allowed->forbidden = std::make_shared<const at::Tensor>(
      at::from_blob(allowed->mask.data(), {rows}, at::kByte).eq(0).to(model.weights().device()));
  return allowed;
}

std::shared_ptr<const AllowedTokens> MakeAllowedTokens(const Model& model, bool allow_special) {
  const Tokenizer& tokenizer = model.tokenizer();
  const auto end =
      static_cast<TokenId>(std::min<int64_t>(model.config().vocab_size, tokenizer.vocab_size()));
  std::vector<TokenId> ids;
  for (TokenId id = 0; id < end; ++id) {
    if (tokenizer.IsToken(id) && (allow_special || !tokenizer.IsSpecial(id))) ids.push_back(id);
  }
  return AllowTokens(model, std::move(ids));
}

}  // namespace epo
