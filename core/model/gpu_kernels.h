// Kernels of our own for what torch's operations make many passes over a GPU's memory for. Includes
// torch.
#ifndef EPO_CORE_MODEL_GPU_KERNELS_H_
#define EPO_CORE_MODEL_GPU_KERNELS_H_

#include <ATen/core/Tensor.h>

namespace epo {

// What a row of a packed pass attends to: its parent's keys at the positions before the first
// changed one, rows of its own item from there on, itself last. int64 [rows] each.
struct AttendedRows {
  // Which parent.
  at::Tensor parent;
  // The first changed position; not above the row's own.
  at::Tensor first;
  // The row of the item's position j is base + j for j before `split`, and tail_base + j from there
  // on; for j from the first changed position to the one before the row's own.
  at::Tensor base;
  at::Tensor split;
  at::Tensor tail_base;
  // Of the row itself.
  at::Tensor position;
};

// For one dtype, that of the model, and its head_dim. Tensors are on the GPU and
// their rows contiguous. Calls put work on the current stream and do not wait for it. Used by one
// thread. All throw c10::Error when the device fails.
class GpuKernels {
 public:
  virtual ~GpuKernels() = default;

  // Rotates, in place, the first channels of `x` [rows, heads, head_dim] by the factors `cos` and
  // `sin` [rows, rotary_dim / 2] (float32; float64 for float64): channel i with channel i +
  // rotary_dim / 2.
  virtual void Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) = 0;

  // Softmax attention of `query` [rows, heads, head_dim] to `key` and `value` [rows, kv_heads,
  // head_dim] of the candidates and `parent_key` and `parent_value` [parents, length, kv_heads,
  // head_dim] of their parents. `attended` may tell of more rows. Returns [rows, heads * head_dim].
  virtual at::Tensor Attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& parent_key, const at::Tensor& parent_value,
                            const AttendedRows& attended) = 0;

  // Each row of `x` [rows, width] over its root mean square, times `weight` [width]: RMSNorm, in
  // float32 whatever the dtype.
  virtual at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) = 0;

  // log sum exp over the columns of `logits` [rows, columns], into `out` [rows] of any stride
  // (float32; float64 for float64).
  virtual void LogSumExp(const at::Tensor& logits, const at::Tensor& out) = 0;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_GPU_KERNELS_H_
