// Devices and dtypes by name. Includes torch.
#ifndef EPO_CORE_MODEL_DEVICE_H_
#define EPO_CORE_MODEL_DEVICE_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/model/gpu_kernels.h"
#include "core/model/recorder.h"

namespace epo {

// "cpu", "cuda:N" or "auto" to a device that can be used. CUDA's libraries are loaded on first
// need, so that one binary serves machines with and without a GPU. INVALID_ARGUMENT for another
// spelling; UNAVAILABLE when there is no such device.
absl::StatusOr<c10::Device> ResolveDevice(std::string_view name);

// "float64", "float32", "bfloat16", "float16", or "auto": bfloat16 where `device` computes it
// natively, else float32. INVALID_ARGUMENT for another spelling.
absl::StatusOr<c10::ScalarType> ResolveDType(std::string_view name, c10::Device device);

// Whether this CPU multiplies bfloat16 matrices natively.
bool CpuComputesBFloat16();

// Loads our own CUDA half, libepo_cuda.so beside the program, into a process that has torch's.
// Returns why it cannot, or "". ResolveDevice() has done so for a GPU.
const std::string& LoadOurCudaLibrary();

// For work on `device`, one that ResolveDevice() gave; null on a CPU, where there is nothing to
// gain.
std::unique_ptr<Recorder> MakeRecorder(c10::Device device);

// Of `dtype`, for heads of `head_dim` channels. Throws c10::Error when the device fails. Null on a
// CPU.
std::unique_ptr<GpuKernels> MakeGpuKernels(c10::Device device, c10::ScalarType dtype,
                                           int64_t head_dim);

std::string DeviceName(c10::Device device);
std::string DTypeName(c10::ScalarType dtype);

}  // namespace epo

#endif  // EPO_CORE_MODEL_DEVICE_H_
