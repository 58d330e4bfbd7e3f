// Reading tokens that no prompt changes: a context's prefix, once for all that stand behind it, and
// a text that others are compared with. Includes torch.
#ifndef EPO_CORE_EVALUATE_FIXED_TOKENS_H_
#define EPO_CORE_EVALUATE_FIXED_TOKENS_H_

#include <ATen/core/Tensor.h>

#include "core/base/types.h"
#include "core/evaluate/plan.h"
#include "core/model/model.h"

namespace epo {

// What the model makes of fixed tokens at the start of a sequence. Immutable.
struct SharedPrefix {
  Prompt tokens;
  // [layers, 2, tokens, kv_heads, head_dim]: keys (rotated), then values.
  at::Tensor keys_values;
  // Of a CPU model of up to 32 bits, whose products want it: the values as [layers, kv_heads,
  // head_dim, tokens]; else undefined.
  at::Tensor value_columns;
  // [vocab], float32 (float64 when the model is): log p(v | tokens).
  at::Tensor log_probs;

  int64_t device_bytes() const;
};

// `tokens`: at least one, at most the model's context. Throws c10::Error when the device fails.
SharedPrefix ReadPrefix(const Model& model, const Prompt& tokens);

// The residual stream at the last of `tokens`, at a site of one of the kinds kResidual and
// kPostAttention; [hidden]. Throws c10::Error when the device fails.
at::Tensor ReadHidden(const Model& model, const Prompt& tokens, Read::Site site, int64_t layer);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_FIXED_TOKENS_H_
