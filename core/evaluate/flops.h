// What the matrix products with a model's weights cost: multiplications and additions a row.
#ifndef EPO_CORE_EVALUATE_FLOPS_H_
#define EPO_CORE_EVALUATE_FLOPS_H_

#include <cstdint>

#include "core/model/model_config.h"

namespace epo {

// One layer's projections.
inline int64_t LayerFlops(const ModelConfig& config) {
  const int64_t attention = 2 * (config.heads + config.kv_heads) * config.head_dim;
  const int64_t mlp = (config.gated_mlp ? 3 : 2) * config.intermediate_size;
  return 2 * config.hidden_size * (attention + mlp);
}

// The output head, or a row of gradients times the embedding.
inline int64_t HeadFlops(const ModelConfig& config) {
  return 2 * config.hidden_size * config.vocab_size;
}

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_FLOPS_H_
