#include "core/evaluate/wide_vectors.h"

namespace epo {
WideVectors::WideVectors(const Weights& weights) {
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

void WideVectors::Keep(const at::Tensor& vector) {
  if (vector.defined()) vectors_.emplace(vector.const_data_ptr(), vector.to(at::kFloat));
}

const at::Tensor& WideVectors::Of(const at::Tensor& vector) const {
  return vectors_.at(vector.const_data_ptr());
}

}  // namespace epo
