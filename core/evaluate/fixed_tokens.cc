#include "core/evaluate/fixed_tokens.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>
#include <vector>

#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Causal attention of one sequence; keeps its keys and values.
class SequenceAttention final : public RowAttention {
 public:
  explicit SequenceAttention(const ModelConfig& config) : config_(config) {}

  at::Tensor Attend(int64_t /*layer*/, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    keys_values_.push_back(at::stack({key, value}));
    const auto batch = [](const at::Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };
    return at::scaled_dot_product_attention(batch(query), batch(key), batch(value),
                                            /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                            /*is_causal=*/true, /*scale=*/{},
                                            /*enable_gqa=*/config_.kv_heads != config_.heads)
        .transpose(1, 2)
        .reshape({query.size(0), config_.heads * config_.head_dim});
  }

  at::Tensor KeysValues() const { return at::stack(keys_values_); }

 private:
  const ModelConfig& config_;
  std::vector<at::Tensor> keys_values_;
};

// A forward pass over one sequence.
class Sequence {
 public:
  Sequence(const Model& model, const Prompt& tokens) : decoder_(model), attention_(model.config()) {
    std::vector<int64_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    const c10::Device device = model.weights().device();
    rotary_ = decoder_.RotaryAt(ToDevice(positions, device));
    residual_ =
        decoder_.Embed(ToDevice(std::vector<int64_t>(tokens.begin(), tokens.end()), device));
    tensors_.wants_post_attention = true;
  }

  // Up to before layer `end`.
  void RunTo(int64_t end) {
    for (; layer_ < end; ++layer_) {
      residual_ = decoder_.Layer(layer_, residual_, rotary_, attention_, tensors_);
    }
  }

  const Decoder& decoder() const { return decoder_; }
  const at::Tensor& residual() const { return residual_; }
  const LayerTensors& tensors() const { return tensors_; }
  at::Tensor KeysValues() const { return attention_.KeysValues(); }

 private:
  const Decoder decoder_;
  SequenceAttention attention_;
  Rotary rotary_;
  at::Tensor residual_;
  LayerTensors tensors_;
  int64_t layer_ = 0;
};

}  // namespace

int64_t SharedPrefix::device_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor* tensor : {&keys_values, &value_columns, &log_probs}) {
    if (tensor->defined()) bytes += static_cast<int64_t>(tensor->nbytes());
  }
  return bytes;
}

SharedPrefix ReadPrefix(const Model& model, const Prompt& tokens) {
  const at::AutoGradMode no_grad(false);
  Sequence sequence(model, tokens);
  sequence.RunTo(model.config().layers);
  SharedPrefix prefix;
  prefix.tokens = tokens;
  prefix.keys_values = sequence.KeysValues();
  if (UsesPackedProduct(model.weights().head.weight)) {
    prefix.value_columns = prefix.keys_values.select(1, 1).permute({0, 2, 3, 1}).contiguous();
  }
  const at::Tensor last =
      sequence.decoder().FinalNorm(sequence.residual().narrow(0, std::ssize(tokens) - 1, 1));
  prefix.log_probs = at::log_softmax(sequence.decoder().Logits(last), -1,
                                     AccumulationType(model.weights().dtype()))[0];
  return prefix;
}

at::Tensor ReadHidden(const Model& model, const Prompt& tokens, Read::Site site, int64_t layer) {
  const at::AutoGradMode no_grad(false);
  Sequence sequence(model, tokens);
  sequence.RunTo(site == Read::Site::kResidual ? layer : layer + 1);
  const at::Tensor& stream =
      site == Read::Site::kResidual ? sequence.residual() : sequence.tensors().post_attention;
  return stream[std::ssize(tokens) - 1];
}

}  // namespace epo
