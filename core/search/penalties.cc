#include "core/search/penalties.h"

#include <ATen/ops/exp.h>
#include <ATen/ops/linspace.h>

#include <cmath>

namespace epo {

std::vector<float> LogSpacedPenalties(double min, double max, int count) {
  const at::Tensor penalties =
      at::exp(at::linspace(std::log(min), std::log(max), count, at::TensorOptions(at::kFloat)));
  const float* values = penalties.const_data_ptr<float>();
  return std::vector<float>(values, values + count);
}

}  // namespace epo
