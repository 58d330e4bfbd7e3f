// One decoder for every architecture: what a layer computes on packed rows, with attention left to
// the caller. Includes torch.
#ifndef EPO_CORE_MODEL_DECODER_H_
#define EPO_CORE_MODEL_DECODER_H_

#include <ATen/core/Tensor.h>

#include "core/model/gpu_kernels.h"
#include "core/model/model.h"
#include "core/model/weights.h"

namespace epo {

// How rows see each other. A row is one token of one prompt; rows of many prompts share every
// matrix product.
class RowAttention {
 public:
  virtual ~RowAttention() = default;

  // `query` [rows, heads, head_dim], `key` and `value` [rows, kv_heads, head_dim], rotated. Returns
  // [rows, heads * head_dim].
  virtual at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value) = 0;
};

// The rotary factors of each row's position, [rows, rotary_dim / 2].
struct Rotary {
  at::Tensor cos;
  at::Tensor sin;

  Rotary Narrow(int64_t rows) const { return {cos.narrow(0, 0, rows), sin.narrow(0, 0, rows)}; }
};

// What a layer computes on its way, for those who read there.
struct LayerTensors {
  // The inputs of the attention's output matrix, [rows, heads * head_dim].
  at::Tensor heads;
  // The residual stream after the attention, [rows, hidden]: in a parallel block what the layer got
  // plus the attention's output, and only if `wants_post_attention`.
  at::Tensor post_attention;
  // The inputs of the second MLP matrix, [rows, intermediate].
  at::Tensor neurons;
  bool wants_post_attention = false;
};

// Stateless over a model that outlives it. Differentiable by autograd with respect to the rows that
// are passed in. The arithmetic follows transformers: RMSNorm in float32 whatever the dtype,
// softmax in the attention's own precision.
class Decoder {
 public:
  // `kernels`, of a GPU, are not owned and may be null.
  explicit Decoder(const Model& model, GpuKernels* kernels = nullptr)
      : config_(model.config()), weights_(model.weights()), kernels_(kernels) {}

  // `ids` and `positions` are int64 [rows] on the model's device.
  at::Tensor Embed(const at::Tensor& ids) const;
  Rotary RotaryAt(const at::Tensor& positions) const;

  // The residual stream after `layer`, [rows, hidden], from the one before it. Fills `tensors`.
  at::Tensor Layer(int64_t layer, const at::Tensor& residual, const Rotary& rotary,
                   RowAttention& attention, LayerTensors& tensors) const;

  // The final norm, [rows, hidden]: what the head reads.
  at::Tensor FinalNorm(const at::Tensor& residual) const;
  // [rows, vocab].
  at::Tensor Logits(const at::Tensor& normed) const;

 private:
  at::Tensor Normalize(const NormWeights& norm, const at::Tensor& x) const;
  at::Tensor Mlp(const LayerWeights& layer, const at::Tensor& x, at::Tensor& neurons) const;

  // Of `x`, [rows, heads, head_dim], that nobody else holds.
  at::Tensor Rotated(const at::Tensor& x, const Rotary& rotary) const;

  const ModelConfig& config_;
  const Weights& weights_;
  GpuKernels* const kernels_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_DECODER_H_
