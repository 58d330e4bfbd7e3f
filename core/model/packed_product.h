// Matrix products of activations with a model's stored weights, for CPUs with AVX2. Knows no torch.
#ifndef EPO_CORE_MODEL_PACKED_PRODUCT_H_
#define EPO_CORE_MODEL_PACKED_PRODUCT_H_

#include <cstdint>
#include <memory>

namespace epo {

// A weight as it is stored, [out, in], or a part of one; `stride` elements from row to row.
// Borrowed.
struct StoredMatrix {
  enum class Type { kFloat32, kBFloat16, kFloat16 };
  const void* data = nullptr;
  Type type = Type::kFloat32;
  int64_t out = 0;
  int64_t in = 0;
  int64_t stride = 0;
};

// y = x W^T + b, and its gradient's g W, in float32, on the calling thread. W is read as it is
// stored, in blocks that are widened and transposed into scratch memory that stays in the cache, so
// nothing of it is kept twice. Each element is the same chain of multiply-adds however many rows
// and columns there are: a row's result does not depend on its company. bench/epo_kernels.cc
// compares it with the library's.
//
// One thread at a time for each object.
class PackedProduct {
 public:
  // With `wide` by vectors of 16 float32 (AVX-512) instead of eight, which changes no bit.
  explicit PackedProduct(bool wide = CpuIsWide());
  ~PackedProduct();

  static bool CpuIsWide();

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
  const bool wide_;
  const std::unique_ptr<float[]> packed_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_PACKED_PRODUCT_H_
