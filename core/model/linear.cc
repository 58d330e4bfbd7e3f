#include "core/model/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

namespace epo {
namespace {

// Columns of a product below which a thread of their own is not worth waking.
constexpr int64_t kGrain = 96;

// Of the calling thread: its scratch memory is made once.
PackedProduct& ThreadsProduct() {
  thread_local PackedProduct product;
  return product;
}

at::Tensor Forward(const at::Tensor& x, const at::Tensor& weight) {
  if (!UsesPackedProduct(weight)) {
    return at::linear(x.to(weight.scalar_type()), weight).to(x.scalar_type());
  }
  const at::Tensor rows = x.contiguous();
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  const auto* from = rows.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  at::parallel_for(0, weight.size(0), kGrain, [&](int64_t begin, int64_t end) {
    ThreadsProduct().Multiply(from, rows.size(0), Stored(weight.narrow(0, begin, end - begin)),
                              /*bias=*/nullptr, PackedProduct::Into::kSet, to + begin, y.size(1));
  });
  return y;
}

// Autograd would multiply by the library in the activations' dtype.
class Linear : public torch::autograd::Function<Linear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight) {
    context->save_for_backward({weight});
    return Forward(x, weight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    return {ProductBackward(gradients[0], context->get_saved_variables()[0]), at::Tensor()};
  }
};

}  // namespace

bool UsesPackedProduct(const at::Tensor& weight) {
  return weight.is_cpu() && weight.scalar_type() != at::kDouble;
}

StoredMatrix Stored(const at::Tensor& weight) {
  StoredMatrix::Type type = StoredMatrix::Type::kFloat32;
  if (weight.scalar_type() == at::kBFloat16) type = StoredMatrix::Type::kBFloat16;
  if (weight.scalar_type() == at::kHalf) type = StoredMatrix::Type::kFloat16;
  return {weight.const_data_ptr(), type, weight.size(0), weight.size(1), weight.stride(0)};
}

at::Tensor Product(const at::Tensor& x, const at::Tensor& weight) {
  if (!UsesPackedProduct(weight) && x.scalar_type() == weight.scalar_type()) {
    return at::linear(x, weight);
  }
  return at::GradMode::is_enabled() ? Linear::apply(x, weight) : Forward(x, weight);
}

at::Tensor Apply(const LinearWeights& linear, const at::Tensor& x) {
  // One kernel there.
  if (x.is_cuda() && linear.bias.defined()) return at::linear(x, linear.weight, linear.bias);
  const at::Tensor product = Product(x, linear.weight);
  return linear.bias.defined() ? product + linear.bias : product;
}

at::Tensor ProductBackward(const at::Tensor& gradient, const at::Tensor& weight) {
  if (!UsesPackedProduct(weight)) {
    return at::matmul(gradient.to(weight.scalar_type()), weight).to(gradient.scalar_type());
  }
  const at::Tensor rows = gradient.contiguous();
  at::Tensor y = at::empty({rows.size(0), weight.size(1)}, rows.options());
  const auto* from = rows.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  at::parallel_for(0, weight.size(1), kGrain, [&](int64_t begin, int64_t end) {
    ThreadsProduct().MultiplyBackward(
        from, rows.size(0), Stored(weight.narrow(1, begin, end - begin)), to + begin, y.size(1));
  });
  return y;
}

}  // namespace epo
