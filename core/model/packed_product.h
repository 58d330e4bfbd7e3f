// Matrix products of activations with a model's stored weights, for CPUs with AVX2. Knows no torch.
#ifndef EPO_CORE_MODEL_PACKED_PRODUCT_H_
#define EPO_CORE_MODEL_PACKED_PRODUCT_H_

#include <cstdint>
#include <memory>

#include "core/model/amx_product.h"
#include "core/model/stored_matrix.h"

namespace epo {

// y = x W^T + b, and its gradient's g W, in float32, on the calling thread. W is read as it is
// stored, in blocks that are widened and transposed into scratch memory that stays in the cache, so
// nothing of it is kept twice. Each element is the same chain of multiply-adds however many rows
// and columns there are: a row's result does not depend on its company. bench/epo_kernels.cc
// compares it with the library's.
//
// bfloat16 weights are multiplied by AmxProduct where there is one; what they are multiplied with
// is then rounded to bfloat16 too.
//
// One thread at a time for each object.
class PackedProduct {
 public:
  // What of the CPU is used beside AVX2.
  struct Units {
    // Vectors of 16 float32 (AVX-512) instead of eight, which changes no bit.
    bool wide = false;
    bool tiles = false;
  };
  // All that this CPU has.
  static Units ThisCpu();

  explicit PackedProduct(const Units& units = ThisCpu());
  ~PackedProduct();

  // What y gets.
  enum class Into {
    kSet,  // y = x W^T + b
    kAdd,  // y += x W^T + b
  };
  // `x` is [rows, weight.in]; `bias` is [weight.out] or null. Row r of the result goes to
  // y + r * stride.
  void Multiply(const float* x, int64_t rows, const StoredMatrix& weight, const float* bias,
                Into into, float* y, int64_t stride);

  // y = g W. `gradient` is [rows, weight.out], y is [rows, weight.in].
  void MultiplyBackward(const float* gradient, int64_t rows, const StoredMatrix& weight, float* y,
                        int64_t stride);

 private:
  // Whether `weight` is AmxProduct's.
  bool ByTiles(const StoredMatrix& weight) const;

  const Units units_;
  AmxProduct tiles_;
  const std::unique_ptr<float[]> packed_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_PACKED_PRODUCT_H_
