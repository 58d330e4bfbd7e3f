#include "core/model/rotation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace epo {
namespace {

// Its gradient is the rotation by the opposite angles.
class Rotation : public torch::autograd::Function<Rotation> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& cos, const at::Tensor& sin, int64_t kernels) {
    context->save_for_backward({cos, sin});
    context->saved_data["kernels"] = kernels;
    at::Tensor rotated = x.clone(at::MemoryFormat::Contiguous);
    reinterpret_cast<GpuKernels*>(kernels)->Rotate(rotated, cos, sin);
    return rotated;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const int64_t kernels = context->saved_data["kernels"].toInt();
    const at::Tensor rotated = gradients[0].clone(at::MemoryFormat::Contiguous);
    reinterpret_cast<GpuKernels*>(kernels)->Rotate(rotated, saved[0], saved[1].neg());
    return {rotated, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor RotateOnGpu(GpuKernels& kernels, const at::Tensor& x, const Rotary& rotary) {
  if (at::GradMode::is_enabled()) {
    return Rotation::apply(x, rotary.cos, rotary.sin, reinterpret_cast<int64_t>(&kernels));
  }
  kernels.Rotate(x, rotary.cos, rotary.sin);
  return x;
}

}  // namespace epo
