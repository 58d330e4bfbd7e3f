// Matrix products with the model's weights, also where activations are wider than what the weights
// are stored in. Includes torch.
#ifndef EPO_CORE_MODEL_LINEAR_H_
#define EPO_CORE_MODEL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include "core/model/weights.h"

namespace epo {

// x W^T, [rows, out], for x [rows, in] and W [out, in], in x's dtype. A weight of another dtype is
// widened a part at a time, or, where the CPU multiplies bfloat16 natively, x is narrowed instead.
// Differentiable with respect to x.
at::Tensor Product(const at::Tensor& x, const at::Tensor& weight);

// x W^T + b. Differentiable with respect to x.
at::Tensor Apply(const LinearWeights& linear, const at::Tensor& x);

// g W, [rows, in], for g [rows, out]: the gradient of x W^T with respect to x. Not differentiable.
at::Tensor ProductBackward(const at::Tensor& gradient, const at::Tensor& weight);

}  // namespace epo

#endif  // EPO_CORE_MODEL_LINEAR_H_
