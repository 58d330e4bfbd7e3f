#include "core/model/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/model/linear.h"
#include "core/model/rotation.h"

namespace epo {
namespace {

// Rotates the first rotary_dim channels of `x` [rows, heads, head_dim]: channel i with channel i +
// rotary_dim / 2.
at::Tensor Rotate(const at::Tensor& x, const Rotary& rotary) {
  const int64_t half = rotary.cos.size(1);
  const at::Tensor cos = rotary.cos.unsqueeze(1);
  const at::Tensor sin = rotary.sin.unsqueeze(1);
  const at::Tensor first = x.narrow(2, 0, half);
  const at::Tensor second = x.narrow(2, half, half);
  const at::Tensor rotated_first = (first * cos - second * sin).to(x.scalar_type());
  const at::Tensor rotated_second = (second * cos + first * sin).to(x.scalar_type());
  if (2 * half == x.size(2)) return at::cat({rotated_first, rotated_second}, 2);
  return at::cat({rotated_first, rotated_second, x.narrow(2, 2 * half, x.size(2) - 2 * half)}, 2);
}

at::Tensor Activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

}  // namespace

at::Tensor Decoder::Embed(const at::Tensor& ids) const {
  return weights_.embedding.index_select(0, ids).to(weights_.compute_dtype());
}

Rotary Decoder::RotaryAt(const at::Tensor& positions) const {
  return {weights_.rope_cos.index_select(0, positions),
          weights_.rope_sin.index_select(0, positions)};
}

at::Tensor Decoder::Normalize(const NormWeights& norm, const at::Tensor& x) const {
  if (config_.norm == Norm::kLayerNorm) {
    return at::layer_norm(x, {config_.hidden_size}, norm.weight.to(x.scalar_type()),
                          norm.bias.to(x.scalar_type()), config_.norm_epsilon);
  }
  if (kernels_ != nullptr && !at::GradMode::is_enabled()) {
    return kernels_->RmsNorm(x, norm.weight, config_.norm_epsilon);
  }
  const at::Tensor wide = x.to(c10::kFloat);
  const at::Tensor variance = wide.pow(2).mean(-1, /*keepdim=*/true);
  return norm.weight * (wide * at::rsqrt(variance + config_.norm_epsilon)).to(x.scalar_type());
}

at::Tensor Decoder::Rotated(const at::Tensor& x, const Rotary& rotary) const {
  return kernels_ == nullptr ? Rotate(x, rotary) : RotateOnGpu(*kernels_, x, rotary);
}

at::Tensor Decoder::Mlp(const LayerWeights& layer, const at::Tensor& x, at::Tensor& neurons) const {
  neurons = Activate(config_.activation, Apply(layer.mlp_input, x));
  if (config_.gated_mlp) neurons = neurons * Apply(layer.mlp_factor, x);
  return Apply(layer.mlp_output, neurons);
}

at::Tensor Decoder::Layer(int64_t layer, const at::Tensor& residual, const Rotary& rotary,
                          RowAttention& attention, LayerTensors& tensors) const {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t rows = residual.size(0);
  const at::Tensor normed = Normalize(weights.attention_norm, residual);
  const at::Tensor query =
      Rotated(Apply(weights.query, normed).view({rows, config_.heads, config_.head_dim}), rotary);
  const at::Tensor key =
      Rotated(Apply(weights.key, normed).view({rows, config_.kv_heads, config_.head_dim}), rotary);
  const at::Tensor value =
      Apply(weights.value, normed).view({rows, config_.kv_heads, config_.head_dim});
  tensors.heads = attention.Attend(layer, query, key, value);
  const at::Tensor attended = Apply(weights.attention_output, tensors.heads);
  if (config_.parallel_block) {
    if (tensors.wants_post_attention) tensors.post_attention = residual + attended;
    return attended + Mlp(weights, normed, tensors.neurons) + residual;
  }
  tensors.post_attention = residual + attended;
  return tensors.post_attention +
         Mlp(weights, Normalize(weights.mlp_norm, tensors.post_attention), tensors.neurons);
}

at::Tensor Decoder::FinalNorm(const at::Tensor& residual) const {
  return Normalize(weights_.final_norm, residual);
}

at::Tensor Decoder::Logits(const at::Tensor& normed) const { return Apply(weights_.head, normed); }

}  // namespace epo
