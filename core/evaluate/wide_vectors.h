// A CPU model's norms and biases as float32, whatever they are stored in. Includes torch.
#ifndef EPO_CORE_EVALUATE_WIDE_VECTORS_H_
#define EPO_CORE_EVALUATE_WIDE_VECTORS_H_

#include <ATen/core/Tensor.h>

#include "absl/container/flat_hash_map.h"
#include "core/model/weights.h"

namespace epo {

// Vectors are small: they are widened once and kept. Matrices are left as they are stored, since a
// widened copy of a half model would take twice its size. Thread-safe.
class WideVectors {
 public:
  explicit WideVectors(const Weights& weights);

  // A norm's weight or any bias of the model, float32.
  const at::Tensor& Of(const at::Tensor& vector) const;

 private:
  void Keep(const at::Tensor& vector);

  absl::flat_hash_map<const void*, at::Tensor> vectors_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_WIDE_VECTORS_H_
