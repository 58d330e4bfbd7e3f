// A decoder's tensors by role. Includes torch: only the model, the evaluator and their tests see
// it.
#ifndef EPO_CORE_MODEL_WEIGHTS_H_
#define EPO_CORE_MODEL_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/checkpoint.h"
#include "core/model/model_config.h"

namespace epo {

// y = x W^T + b. `weight` is [out, in]; `bias` is [out] or undefined.
struct LinearWeights {
  at::Tensor weight;
  at::Tensor bias;
};

// `weight` is [width]; `bias` is [width] for LayerNorm and undefined for RMSNorm.
struct NormWeights {
  at::Tensor weight;
  at::Tensor bias;
};

struct LayerWeights {
  NormWeights attention_norm;
  // Undefined in a parallel block, whose MLP reads attention_norm's output.
  NormWeights mlp_norm;
  // [heads * head_dim, hidden], [kv_heads * head_dim, hidden] twice.
  LinearWeights query, key, value;
  // [hidden, heads * head_dim].
  LinearWeights attention_output;
  // [intermediate, hidden]: what the activation function is applied to.
  LinearWeights mlp_input;
  // [intermediate, hidden]: the factor beside it; undefined unless gated.
  LinearWeights mlp_factor;
  // [hidden, intermediate]: its inputs are the neurons.
  LinearWeights mlp_output;
};

// All on one device in one dtype, except the rotary tables. Read-only: tensors may lie in the
// checkpoint's mapped files.
struct Weights {
  // [vocab, hidden].
  at::Tensor embedding;
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  // [vocab, hidden]; the embedding itself when the head is tied.
  LinearWeights head;
  // [context, rotary_dim / 2], float64 when the dtype is float64, else float32; computed in float32
  // as transformers does.
  at::Tensor rope_cos;
  at::Tensor rope_sin;
  // Keeps the mapped files that tensors point into.
  std::vector<std::shared_ptr<const SafetensorsFile>> files;

  c10::ScalarType dtype() const { return embedding.scalar_type(); }
  // What activations are held in: float32 for the half types on a CPU, which computes them in it
  // anyway; else the dtype.
  c10::ScalarType compute_dtype() const {
    const bool half = dtype() == c10::kBFloat16 || dtype() == c10::kHalf;
    return half && device().is_cpu() ? c10::kFloat : dtype();
  }
  c10::Device device() const { return embedding.device(); }
};

// Takes from `checkpoint` the tensors that `config` asks for, converted to `dtype` on `device`.
// NOT_FOUND or INVALID_ARGUMENT names the file and the tensor that is missing, of another shape or
// not floating point.
absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(const Checkpoint& checkpoint,
                                                     const ModelConfig& config, c10::Device device,
                                                     c10::ScalarType dtype);

}  // namespace epo

#endif  // EPO_CORE_MODEL_WEIGHTS_H_
