// Matrix products of activations with bfloat16 weights by the tile unit (AMX) of newer Intel CPUs,
// ten times the rate of float32. Knows no torch.
#ifndef EPO_CORE_MODEL_AMX_PRODUCT_H_
#define EPO_CORE_MODEL_AMX_PRODUCT_H_

#include <cstdint>
#include <vector>

#include "core/model/stored_matrix.h"

namespace epo {

// As PackedProduct, whose contract and blocks it shares, but that activations are rounded to
// bfloat16; sums are float32. A row's result does not depend on its company: each is the same chain
// of tile operations. For weights of StoredMatrix::Type::kBFloat16.
//
// One thread at a time for each object.
class AmxProduct {
 public:
  // Whether this CPU and this system have it. Asks the system for leave to use it, once a process.
  static bool Available();

  // y = x W^T + b, or onto what y holds if `add`. `x` is [rows, weight.in]; `bias` is [weight.out]
  // or null. Row r of the result goes to y + r * stride.
  void Multiply(const float* x, int64_t rows, const StoredMatrix& weight, const float* bias,
                bool add, float* y, int64_t stride);

  // y = g W. `gradient` is [rows, weight.out], y is [rows, weight.in].
  void MultiplyBackward(const float* gradient, int64_t rows, const StoredMatrix& weight, float* y,
                        int64_t stride);

 private:
  template <bool backward>
  void Run(const float* x, int64_t rows, const StoredMatrix& weight, const float* bias, bool add,
           float* y, int64_t stride);
  void Round(const float* x, int64_t rows, int64_t depth);

  // x in bfloat16, [rows, depth] rounded up to whole tiles.
  std::vector<uint16_t> rounded_;
  int64_t rounded_stride_ = 0;
  // A block of weights: panels of 16 columns, [depth / 2, 16] pairs each.
  std::vector<uint32_t> packed_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_AMX_PRODUCT_H_
