// Rotary position embeddings on a GPU, by our own kernel. Includes torch.
#ifndef EPO_CORE_MODEL_ROTATION_H_
#define EPO_CORE_MODEL_ROTATION_H_

#include "core/model/decoder.h"
#include "core/model/gpu_kernels.h"

namespace epo {

// `x` [rows, heads, head_dim], which nobody else holds, rotated; differentiable with respect to it.
// `kernels` must outlive the gradient. Throws c10::Error when the device fails.
at::Tensor RotateOnGpu(GpuKernels& kernels, const at::Tensor& x, const Rotary& rotary);

}  // namespace epo

#endif  // EPO_CORE_MODEL_ROTATION_H_
