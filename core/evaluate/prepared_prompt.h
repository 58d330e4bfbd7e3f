// What Prepare() keeps of a prompt. Includes torch.
#ifndef EPO_CORE_EVALUATE_PREPARED_PROMPT_H_
#define EPO_CORE_EVALUATE_PREPARED_PROMPT_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/evaluate/evaluator.h"

namespace epo {

// For a prompt of n tokens; tensors are on the model's device.
class PreparedPrompt final : public Prepared {
 public:
  const Prompt& prompt() const override { return ids; }
  const Objective& objective() const override { return goal; }
  Score score() const override { return {static_cast<float>(target), cross_entropy}; }
  TokenId next_token() const override { return next; }
  bool has_gradients() const override { return target_gradient.defined(); }
  int64_t device_bytes() const override {
    int64_t bytes = 0;
    for (const at::Tensor* tensor :
         {&keys_values, &log_probs, &target_gradient, &cross_entropy_gradient}) {
      if (tensor->defined()) bytes += static_cast<int64_t>(tensor->nbytes());
    }
    return bytes;
  }

  Prompt ids;
  Objective goal;
  double target = 0;
  float cross_entropy = 0;
  TokenId next = 0;
  // -log p(t_i | t_<i) of position i = 1..n-1 at [i - 1], in nats.
  std::vector<double> surprisal;
  // [layers, 2, n, kv_heads, head_dim]: keys (rotated), then values.
  at::Tensor keys_values;
  // [n - 1, vocab], float32 (float64 when the model is): log p(v | t_<=i) at row i.
  at::Tensor log_probs;
  // [n, hidden]: gradients of target and cross-entropy with respect to the embedded tokens, without
  // the label path (docs/epo.md).
  at::Tensor target_gradient;
  at::Tensor cross_entropy_gradient;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PREPARED_PROMPT_H_
