#include "core/model/device.h"

#include <ATen/Context.h>
#include <c10/core/DeviceGuard.h>
#include <dlfcn.h>

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// Our own CUDA half (cuda_recorder.cc, cuda_kernels.cc) lies beside the program.
constexpr char kOurLibrary[] = "libepo_cuda.so";
Recorder* (*new_recorder)() = nullptr;
GpuKernels* (*new_kernels)(c10::ScalarType dtype, int64_t head_dim) = nullptr;

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// What our half leaves open that torch's does not bring into the process.
constexpr char kCompilerLibrary[] = "libnvrtc.so.13";

std::string LoadOurLibrary() {
  if (dlopen(kCompilerLibrary, RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  void* library = dlopen((program.parent_path() / kOurLibrary).c_str(), RTLD_NOW);
  return library != nullptr && Find(library, "EpoNewCudaRecorder", new_recorder) &&
                 Find(library, "EpoNewCudaKernels", new_kernels)
             ? ""
             : dlerror();
}

// Loads torch's CUDA half, which registers its kernels as it loads, and ours. Returns why it
// cannot, or "".
const std::string& LoadCuda() {
  static const std::string error = [] {
    // Before anything asks torch for CUDA: it looks once, and remembers that it found none.
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      return std::string(dlerror());
    }
    if (!at::hasCUDA()) return std::string("no CUDA device is visible");
    // It spends most of a second on each new shape of attention, and is not the fastest on short
    // prompts.
    at::globalContext().setSDPUseCuDNN(false);
    return LoadOurLibrary();
  }();
  return error;
}

int CudaDevices() {
  return LoadCuda().empty() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

}  // namespace

bool CpuComputesBFloat16() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

absl::StatusOr<c10::Device> ResolveDevice(std::string_view name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "auto") {
    return CudaDevices() > 0 ? c10::Device(c10::kCUDA, 0) : c10::Device(c10::kCPU);
  }
  int index = 0;
  if (name.substr(0, 5) != "cuda:" ||
      !absl::SimpleAtoi(absl::string_view(name.data() + 5, name.size() - 5), &index) || index < 0 ||
      index > 127) {
    return absl::InvalidArgumentError(
        absl::StrCat("device '", std::string(name), "' is none of cpu, cuda:N and auto"));
  }
  const int devices = CudaDevices();
  if (index >= devices) {
    return absl::UnavailableError(
        LoadCuda().empty()
            ? absl::StrCat("device cuda:", index, ": this machine has ", devices, " CUDA devices")
            : absl::StrCat("device cuda:", index, ": ", LoadCuda()));
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

absl::StatusOr<c10::ScalarType> ResolveDType(std::string_view name, c10::Device device) {
  if (name == "float64") return c10::kDouble;
  if (name == "float32") return c10::kFloat;
  if (name == "bfloat16") return c10::kBFloat16;
  if (name == "float16") return c10::kHalf;
  if (name == "auto") {
    return device.is_cuda() || CpuComputesBFloat16() ? c10::kBFloat16 : c10::kFloat;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "dtype '", std::string(name), "' is none of float64, float32, bfloat16, float16 and auto"));
}

std::unique_ptr<Recorder> MakeRecorder(c10::Device device) {
  if (!device.is_cuda() || !LoadCuda().empty()) return nullptr;
  return std::unique_ptr<Recorder>(new_recorder());
}

std::unique_ptr<GpuKernels> MakeGpuKernels(c10::Device device, c10::ScalarType dtype,
                                           int64_t head_dim) {
  if (!device.is_cuda() || !LoadCuda().empty()) return nullptr;
  const c10::DeviceGuard on(device);
  return std::unique_ptr<GpuKernels>(new_kernels(dtype, head_dim));
}

std::string DeviceName(c10::Device device) {
  return device.is_cuda() ? absl::StrCat("cuda:", static_cast<int>(device.index())) : "cpu";
}

std::string DTypeName(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kDouble:
      return "float64";
    case c10::kFloat:
      return "float32";
    case c10::kBFloat16:
      return "bfloat16";
    case c10::kHalf:
      return "float16";
    default:
      return c10::toString(dtype);
  }
}

}  // namespace epo
