// Matrix products with the model's weights, also where activations are wider than what the weights
// are stored in. Includes torch.
#ifndef EPO_CORE_MODEL_LINEAR_H_
#define EPO_CORE_MODEL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include "core/model/packed_product.h"
#include "core/model/weights.h"

namespace epo {

// Whether products with `weight` are made by packed_product.h, which computes in float32: on a CPU,
// for up to 32 bits. A row's result is then the same bits whatever other rows there are.
bool UsesPackedProduct(const at::Tensor& weight);

// A float32, bfloat16 or float16 matrix of a CPU model with contiguous rows, as packed_product.h
// wants it.
StoredMatrix Stored(const at::Tensor& weight);

// x W^T, [rows, out], for x [rows, in] and W [out, in], in x's dtype: float32 if
// UsesPackedProduct(W). Differentiable with respect to x.
at::Tensor Product(const at::Tensor& x, const at::Tensor& weight);

// x W^T + b. Differentiable with respect to x.
at::Tensor Apply(const LinearWeights& linear, const at::Tensor& x);

// g W, [rows, in], for g [rows, out]: the gradient of x W^T with respect to x. Not differentiable.
at::Tensor ProductBackward(const at::Tensor& gradient, const at::Tensor& weight);

}  // namespace epo

#endif  // EPO_CORE_MODEL_LINEAR_H_
