// The GPU's kernels, core/model/kernels.cu, run by a host: the same source, a fiber a lane. What a
// test sees of them without a GPU is their arithmetic and their indices, not a GPU's timing.
#ifndef EPO_TESTS_UNIT_CORE_HOST_KERNELS_H_
#define EPO_TESTS_UNIT_CORE_HOST_KERNELS_H_

#include <memory>

#include "core/model/gpu_kernels.h"

namespace epo {

// Takes tensors on the CPU, of at most 96 channels a head. `dtype` is float64 or bfloat16.
std::unique_ptr<GpuKernels> MakeHostKernels(c10::ScalarType dtype);

}  // namespace epo

#endif  // EPO_TESTS_UNIT_CORE_HOST_KERNELS_H_
