#include "core/model/device.h"

#include <ATen/Context.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <link.h>

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/match.h"
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

// The compiler looks for a part of itself where the system looks, not beside itself; it finds it
// here if it is in the process already.
void LoadPartsOf(void* compiler) {
  link_map* map = nullptr;
  if (dlinfo(compiler, RTLD_DI_LINKMAP, &map) != 0) return;
  const std::filesystem::path folder = std::filesystem::path(map->l_name).parent_path();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (absl::StartsWith(entry.path().filename().string(), "libnvrtc-builtins.so")) {
      dlopen(entry.path().c_str(), RTLD_NOW | RTLD_GLOBAL);
    }
  }
}

std::string TryLoadOurLibrary() {
  void* compiler = dlopen(kCompilerLibrary, RTLD_NOW | RTLD_GLOBAL);
  if (compiler == nullptr) return dlerror();
  LoadPartsOf(compiler);
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  void* library = dlopen((program.parent_path() / kOurLibrary).c_str(), RTLD_NOW);
  size_t (*compile)(c10::ScalarType dtype, int64_t head_dim, int capability) = nullptr;
  if (library == nullptr || !Find(library, "EpoNewCudaRecorder", new_recorder) ||
      !Find(library, "EpoNewCudaKernels", new_kernels) ||
      !Find(library, "EpoCompileCudaKernels", compile)) {
    return dlerror();
  }
  // A compiler that does not work is better known now than when the first job comes.
  try {
    compile(c10::kFloat, /*head_dim=*/64, /*capability=*/90);
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  }
  return "";
}

// Loads torch's CUDA half, which registers its kernels as it loads, and ours if there is a GPU.
// Returns why it cannot, or "".
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
    return LoadOurCudaLibrary();
  }();
  return error;
}

int CudaDevices() {
  return LoadCuda().empty() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

}  // namespace

const std::string& LoadOurCudaLibrary() {
  static const std::string error = TryLoadOurLibrary();
  return error;
}

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
