// The machine's GPUs, as NVIDIA's management library tells of them.
#ifndef EPO_SERVER_GPU_SAMPLES_H_
#define EPO_SERVER_GPU_SAMPLES_H_

#include <functional>
#include <vector>

#include "server/metrics.h"

namespace epo {

// Memory and utilisation of every GPU of the machine, whoever uses it. Loads libnvidia-ml.so.1,
// which comes with the driver, at run time; null where there is none, or no GPU. The source stays
// usable as long as the process lives.
std::function<std::vector<Sample>()> OpenGpuSamples();

}  // namespace epo

#endif  // EPO_SERVER_GPU_SAMPLES_H_
