// A CPU model's weights as float32, whatever they are stored in. Includes torch.
#ifndef EPO_CORE_EVALUATE_WIDE_WEIGHTS_H_
#define EPO_CORE_EVALUATE_WIDE_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include "absl/container/flat_hash_map.h"
#include "core/model/weights.h"

namespace epo {

// What is small, the vectors, is widened once and kept; matrices are left as they are stored, since
// a widened copy of a half model would take twice its size. Thread-safe.
class WideWeights {
 public:
  explicit WideWeights(const Weights& weights);

  // Writes row `row` of `weight` to `out`.
  void Row(const at::Tensor& weight, int64_t row, float* out) const;

  // A norm's weight or any bias of the model, float32.
  const at::Tensor& Vector(const at::Tensor& vector) const;

 private:
  void Keep(const at::Tensor& vector);

  absl::flat_hash_map<const void*, at::Tensor> vectors_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_WIDE_WEIGHTS_H_
