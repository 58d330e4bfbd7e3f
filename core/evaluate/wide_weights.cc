#include "core/evaluate/wide_weights.h"

#include <algorithm>

#include "core/evaluate/kernels.h"

namespace epo {
namespace {

void Widen(const at::Tensor& from, int64_t offset, int64_t count, float* out) {
  const auto* bits = static_cast<const uint16_t*>(from.const_data_ptr()) + offset;
  if (from.scalar_type() == at::kBFloat16) {
    kernels::WidenBFloat16(bits, count, out);
  } else {
    kernels::WidenFloat16(bits, count, out);
  }
}

bool IsWide(const at::Tensor& tensor) { return tensor.scalar_type() == at::kFloat; }

}  // namespace

WideWeights::WideWeights(const Weights& weights) {
  const auto keep_linear = [this](const LinearWeights& linear) { Keep(linear.bias); };
  const auto keep_norm = [this](const NormWeights& norm) {
    Keep(norm.weight);
    Keep(norm.bias);
  };
  for (const LayerWeights& layer : weights.layers) {
    keep_norm(layer.attention_norm);
    keep_norm(layer.mlp_norm);
    for (const LinearWeights* linear :
         {&layer.query, &layer.key, &layer.value, &layer.attention_output, &layer.mlp_input,
          &layer.mlp_factor, &layer.mlp_output}) {
      keep_linear(*linear);
    }
  }
  keep_norm(weights.final_norm);
  keep_linear(weights.head);
}

void WideWeights::Keep(const at::Tensor& vector) {
  if (vector.defined()) vectors_.emplace(vector.const_data_ptr(), vector.to(at::kFloat));
}

const at::Tensor& WideWeights::Vector(const at::Tensor& vector) const {
  return vectors_.at(vector.const_data_ptr());
}

void WideWeights::Row(const at::Tensor& weight, int64_t row, float* out) const {
  const int64_t width = weight.size(1);
  if (IsWide(weight)) {
    const float* from = weight.const_data_ptr<float>() + row * width;
    std::copy(from, from + width, out);
  } else {
    Widen(weight, row * width, width, out);
  }
}

}  // namespace epo
