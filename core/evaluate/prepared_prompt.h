// What Prepare() keeps of a prompt. Includes torch.
#ifndef EPO_CORE_EVALUATE_PREPARED_PROMPT_H_
#define EPO_CORE_EVALUATE_PREPARED_PROMPT_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/fixed_tokens.h"
#include "core/evaluate/model_target.h"

namespace epo {

// A prompt in one branch of its target's plan. Tensors are on the model's device.
struct PreparedBranch {
  // The branch's first `start` tokens; null when there are none.
  std::shared_ptr<const SharedPrefix> prefix;
  // One a token that the cross-entropy counts: -log p, in nats.
  std::vector<double> surprisal;
  // One a read of the branch.
  std::vector<double> reads;
  // [layers, 2, rows, kv_heads, head_dim]: keys (rotated), then values, of the rows from `start`
  // on.
  at::Tensor keys_values;
  // [tokens of the prompt that are counted, vocab], float32 (float64 when the model is): log p(v |
  // what precedes). Undefined in a branch that counts none.
  at::Tensor log_probs;
};

// For a prompt of n tokens.
class PreparedPrompt final : public Prepared {
 public:
  const Prompt& prompt() const override { return ids; }
  const std::shared_ptr<const Target>& target() const override { return goal; }
  Score score() const override { return {static_cast<float>(value), cross_entropy}; }
  std::span<const double> term_values() const override { return terms; }
  TokenId next_token() const override { return next; }
  bool has_gradients() const override { return target_gradient.defined(); }
  int64_t device_bytes() const override {
    int64_t bytes = 0;
    const auto add = [&](const at::Tensor& tensor) {
      if (tensor.defined()) bytes += static_cast<int64_t>(tensor.nbytes());
    };
    for (const PreparedBranch& branch : branches) {
      add(branch.keys_values);
      add(branch.log_probs);
    }
    add(target_gradient);
    add(cross_entropy_gradient);
    return bytes;
  }

  const ModelTarget& model_target() const { return static_cast<const ModelTarget&>(*goal); }

  Prompt ids;
  std::shared_ptr<const Target> goal;
  // For prompts of n tokens. The target's.
  const Plan* plan = nullptr;
  double value = 0;
  float cross_entropy = 0;
  std::vector<double> terms;
  TokenId next = 0;
  // One a branch of the plan.
  std::vector<PreparedBranch> branches;
  // [n, hidden]: gradients of target and cross-entropy with respect to the embedded tokens, without
  // the label path (docs/epo.md).
  at::Tensor target_gradient;
  at::Tensor cross_entropy_gradient;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PREPARED_PROMPT_H_
