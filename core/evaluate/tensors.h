// Small conversions between the host's vectors and the device's tensors. Includes torch.
#ifndef EPO_CORE_EVALUATE_TENSORS_H_
#define EPO_CORE_EVALUATE_TENSORS_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <vector>

namespace epo {

// What log-sum-exps and softmaxes of a model in `dtype` are accumulated in.
inline c10::ScalarType AccumulationType(c10::ScalarType dtype) {
  return dtype == c10::kDouble ? c10::kDouble : c10::kFloat;
}

// A copy of `values` on `device`, in the order of its stream: the host does not wait for it.
template <typename T>
at::Tensor ToDevice(const std::vector<T>& values, c10::Device device) {
  const at::Tensor host =
      at::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())},
                    at::TensorOptions(c10::CppTypeToScalarType<T>::value));
  return device.is_cpu() ? host.clone() : host.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_TENSORS_H_
