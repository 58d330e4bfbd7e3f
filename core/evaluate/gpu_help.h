// What passes on a GPU use beside torch's operations.
#ifndef EPO_CORE_EVALUATE_GPU_HELP_H_
#define EPO_CORE_EVALUATE_GPU_HELP_H_

#include "core/model/gpu_kernels.h"
#include "core/model/recorder.h"

namespace epo {

// Neither is owned; both are null on a CPU.
struct GpuHelp {
  GpuKernels* kernels = nullptr;
  // A pass is recorded when its shape comes the second time.
  Recorder* recorder = nullptr;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_GPU_HELP_H_
