// A CPU model's weights as float32, whatever they are stored in. Includes torch.
#ifndef EPO_CORE_EVALUATE_WIDE_WEIGHTS_H_
#define EPO_CORE_EVALUATE_WIDE_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <functional>

#include "absl/container/flat_hash_map.h"
#include "core/model/weights.h"

namespace epo {

// float32 weights are handed out as they stand. bfloat16 and float16 ones stay as they are stored
// and are widened a matrix at a time into scratch memory: a CPU without bfloat16 arithmetic
// multiplies float32 twenty times faster, and a widened copy of the whole model would take twice
// its size.
class WideWeights {
 public:
  explicit WideWeights(const Weights& weights);

  // float32 [out, in]. Valid until the next call; one thread at a time.
  at::Tensor Matrix(const at::Tensor& weight);

  // Rows [first, first + count) of `weight`, widened into what `scratch(rows, width)` returns if
  // need be. Thread-safe.
  at::Tensor Part(const at::Tensor& weight, int64_t first, int64_t count,
                  const std::function<at::Tensor(int64_t, int64_t)>& scratch) const;

  // Writes row `row` of `weight` to `out`. Thread-safe.
  void Row(const at::Tensor& weight, int64_t row, float* out) const;

  // A norm's weight or any bias of the model, float32. Thread-safe.
  const at::Tensor& Vector(const at::Tensor& vector) const;

 private:
  void Keep(const at::Tensor& vector);

  at::Tensor scratch_;
  absl::flat_hash_map<const void*, at::Tensor> vectors_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_WIDE_WEIGHTS_H_
