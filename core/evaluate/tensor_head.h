// What is read from the output head by tensor operations. Logits exist one tile of the vocabulary
// at a time. Includes torch.
#ifndef EPO_CORE_EVALUATE_TENSOR_HEAD_H_
#define EPO_CORE_EVALUATE_TENSOR_HEAD_H_

#include <ATen/core/Tensor.h>

#include "core/model/gpu_kernels.h"
#include "core/model/model.h"

namespace epo {

// `normed`, what the head reads, is [rows, hidden]; results are [rows], float32 (float64 when the
// model is). Both throw c10::Error when the device fails.

// -log p(label) of each row, for `labels` [rows]. `kernels` may be null.
at::Tensor Surprisal(const Model& model, GpuKernels* kernels, const at::Tensor& normed,
                     const at::Tensor& labels);

// The greatest logit of each row of all tokens but its one of `tokens` [rows].
at::Tensor BestOther(const Model& model, const at::Tensor& normed, const at::Tensor& tokens);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_TENSOR_HEAD_H_
