#include "core/model/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "core/model/device.h"

namespace epo {
namespace {

// Elements of a weight that are widened at a time: 64 MB of float32.
constexpr int64_t kPartElements = 1 << 24;

bool MultipliesAsStored(const at::Tensor& weight) {
  static const bool native = CpuComputesBFloat16();
  return native && weight.scalar_type() == at::kBFloat16;
}

// Calls part(first, widened rows) for the rows of `weight` in order.
template <typename Fn>
void ForEachWidenedPart(const at::Tensor& weight, at::ScalarType dtype, const Fn& part) {
  const int64_t step = std::max<int64_t>(1, kPartElements / weight.size(1));
  for (int64_t first = 0; first < weight.size(0); first += step) {
    const int64_t count = std::min(step, weight.size(0) - first);
    part(first, weight.narrow(0, first, count).to(dtype));
  }
}

at::Tensor MixedProduct(const at::Tensor& x, const at::Tensor& weight) {
  if (MultipliesAsStored(weight)) {
    return at::linear(x.to(weight.scalar_type()), weight).to(x.scalar_type());
  }
  std::vector<at::Tensor> columns;
  ForEachWidenedPart(weight, x.scalar_type(), [&](int64_t /*first*/, const at::Tensor& part) {
    columns.push_back(at::linear(x, part));
  });
  return columns.size() == 1 ? columns[0] : at::cat(columns, 1);
}

// Autograd would keep each widened weight until the backward pass; this keeps the stored one and
// widens it again.
class MixedLinear : public torch::autograd::Function<MixedLinear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight) {
    context->save_for_backward({weight});
    return MixedProduct(x, weight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    return {ProductBackward(gradients[0], context->get_saved_variables()[0]), at::Tensor()};
  }
};

}  // namespace

at::Tensor Product(const at::Tensor& x, const at::Tensor& weight) {
  if (x.scalar_type() == weight.scalar_type()) return at::linear(x, weight);
  return MixedLinear::apply(x, weight);
}

at::Tensor Apply(const LinearWeights& linear, const at::Tensor& x) {
  if (!linear.bias.defined()) return Product(x, linear.weight);
  if (x.scalar_type() == linear.weight.scalar_type()) {
    return at::linear(x, linear.weight, linear.bias);
  }
  return Product(x, linear.weight) + linear.bias;
}

at::Tensor ProductBackward(const at::Tensor& gradient, const at::Tensor& weight) {
  if (gradient.scalar_type() == weight.scalar_type()) return at::matmul(gradient, weight);
  if (MultipliesAsStored(weight)) {
    return at::matmul(gradient.to(weight.scalar_type()), weight).to(gradient.scalar_type());
  }
  at::Tensor sum;
  ForEachWidenedPart(weight, gradient.scalar_type(), [&](int64_t first, const at::Tensor& part) {
    const at::Tensor product = at::matmul(gradient.narrow(1, first, part.size(0)), part);
    sum = sum.defined() ? sum + product : product;
  });
  return sum;
}

}  // namespace epo
