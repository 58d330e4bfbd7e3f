// Part of the library that is loaded with torch's CUDA half (see cuda_recorder.cc). The kernels are
// compiled as they are needed, by NVRTC, which torch brings: building asks for no CUDA compiler.

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/model/gpu_kernels.h"
#include "core/model/kernels_cu.h"

// Of nvrtc.h, which belongs to a wheel that only a machine with a GPU needs.
extern "C" {
using nvrtcProgram = struct OpaqueNvrtcProgram*;
int nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char* name, int headers,
                       const char* const* contents, const char* const* names);
int nvrtcCompileProgram(nvrtcProgram program, int options, const char* const* option);
int nvrtcDestroyProgram(nvrtcProgram* program);
int nvrtcGetProgramLogSize(nvrtcProgram program, size_t* size);
int nvrtcGetProgramLog(nvrtcProgram program, char* log);
int nvrtcGetCUBINSize(nvrtcProgram program, size_t* size);
int nvrtcGetCUBIN(nvrtcProgram program, char* cubin);
}

namespace epo {
namespace {

const char* TypeName(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kBFloat16:
      return "EPO_BFLOAT16";
    case c10::kHalf:
      return "EPO_FLOAT16";
    case c10::kDouble:
      return "EPO_FLOAT64";
    default:
      return "EPO_FLOAT32";
  }
}

// kKernels as machine code for GPUs of compute capability `capability`, such as 90.
std::string Compile(c10::ScalarType dtype, int64_t head_dim, int capability) {
  const std::vector<std::string> options = {"--std=c++17",
                                            "--gpu-architecture=sm_" + std::to_string(capability),
                                            std::string("-D") + TypeName(dtype) + "=1",
                                            "-DkSlots=" + std::to_string((head_dim + 31) / 32)};
  std::vector<const char*> texts;
  for (const std::string& option : options) texts.push_back(option.c_str());
  nvrtcProgram program = nullptr;
  int error = nvrtcCreateProgram(&program, kKernels, "epo_kernels.cu", 0, nullptr, nullptr);
  TORCH_CHECK(error == 0, "NVRTC: error ", error);
  error = nvrtcCompileProgram(program, static_cast<int>(texts.size()), texts.data());
  size_t size = 0;
  std::string text;
  if (error != 0) {
    nvrtcGetProgramLogSize(program, &size);
    text.resize(size);
    nvrtcGetProgramLog(program, text.data());
  } else {
    nvrtcGetCUBINSize(program, &size);
    text.resize(size);
    nvrtcGetCUBIN(program, text.data());
  }
  nvrtcDestroyProgram(&program);
  TORCH_CHECK(error == 0, "NVRTC: error ", error, ": ", text);
  return text;
}

class CudaKernels final : public GpuKernels {
 public:
  CudaKernels(c10::ScalarType dtype, int64_t head_dim) : dtype_(dtype), head_dim_(head_dim) {
    int device = 0, major = 0, minor = 0;
    C10_CUDA_CHECK(cudaGetDevice(&device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    const std::string code = Compile(dtype, head_dim, 10 * major + minor);
    C10_CUDA_CHECK(
        cudaLibraryLoadData(&library_, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
    C10_CUDA_CHECK(cudaLibraryGetKernel(&rotate_, library_, "Rotate"));
    C10_CUDA_CHECK(cudaLibraryGetKernel(&attend_, library_, "Attend"));
    C10_CUDA_CHECK(cudaLibraryGetKernel(&rms_norm_, library_, "RmsNorm"));
    C10_CUDA_CHECK(cudaLibraryGetKernel(&log_sum_exp_, library_, "LogSumExp"));
  }
  ~CudaKernels() override { cudaLibraryUnload(library_); }
  CudaKernels(const CudaKernels&) = delete;
  CudaKernels& operator=(const CudaKernels&) = delete;

  void Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) override {
    const int64_t pairs = x.size(0) * x.size(1) * cos.size(1);
    constexpr int kThreads = 256;
    Launch(rotate_, dim3((pairs + kThreads - 1) / kThreads), dim3(kThreads), Data(x), Factors(cos),
           Factors(sin), pairs, Int(x.size(1)), Int(x.size(2)), Int(cos.size(1)));
  }

  at::Tensor Attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const at::Tensor& parent_key, const at::Tensor& parent_value,
                    const AttendedRows& attended) override {
    const int64_t rows = query.size(0);
    const int64_t heads = query.size(1);
    at::Tensor out = at::empty({rows, heads * head_dim_}, query.options());
    constexpr int kRows = 8;
    const dim3 blocks((rows + kRows - 1) / kRows, heads);
    const auto launch = [&](auto scale) {
      Launch(attend_, blocks, dim3(32, kRows), Data(query), Data(key), Data(value),
             Data(parent_key, false), Data(parent_value, false), parent_key.stride(0),
             attended.parent.const_data_ptr<int64_t>(), attended.first.const_data_ptr<int64_t>(),
             attended.base.const_data_ptr<int64_t>(), attended.split.const_data_ptr<int64_t>(),
             attended.tail_base.const_data_ptr<int64_t>(),
             attended.position.const_data_ptr<int64_t>(), rows, Int(heads), Int(key.size(1)),
             Int(head_dim_), scale, Data(out));
    };
    const double scale = 1 / std::sqrt(static_cast<double>(head_dim_));
    if (dtype_ == c10::kDouble) {
      launch(scale);
    } else {
      launch(static_cast<float>(scale));
    }
    return out;
  }

  at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) override {
    at::Tensor out = at::empty_like(x);
    constexpr int kRows = 8;
    Launch(rms_norm_, dim3((x.size(0) + kRows - 1) / kRows), dim3(32, kRows), Data(x), Data(weight),
           x.size(0), Int(x.size(1)), static_cast<float>(epsilon), Data(out));
    return out;
  }

  void LogSumExp(const at::Tensor& logits, const at::Tensor& out) override {
    TORCH_CHECK(out.scalar_type() == Wide());
    Launch(log_sum_exp_, dim3(logits.size(0)), dim3(256), Data(logits), logits.size(1),
           out.data_ptr(), out.stride(0));
  }

 private:
  static int Int(int64_t value) { return static_cast<int>(value); }
  c10::ScalarType Wide() const { return dtype_ == c10::kDouble ? c10::kDouble : c10::kFloat; }

  void* Data(const at::Tensor& tensor, bool contiguous = true) const {
    TORCH_CHECK(tensor.scalar_type() == dtype_ && (!contiguous || tensor.is_contiguous()));
    return tensor.data_ptr();
  }
  void* Factors(const at::Tensor& tensor) const {
    TORCH_CHECK(tensor.scalar_type() == Wide() && tensor.is_contiguous());
    return tensor.data_ptr();
  }

  // `arguments` have the types of the kernel's parameters.
  template <typename... Arguments>
  static void Launch(cudaKernel_t kernel, dim3 blocks, dim3 threads, Arguments... arguments) {
    if (blocks.x == 0) return;
    void* places[] = {&arguments...};
    C10_CUDA_CHECK(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), blocks, threads, places,
                                    0, c10::cuda::getCurrentCUDAStream()));
  }

  const c10::ScalarType dtype_;
  const int64_t head_dim_;
  cudaLibrary_t library_ = nullptr;
  cudaKernel_t rotate_ = nullptr;
  cudaKernel_t attend_ = nullptr;
  cudaKernel_t rms_norm_ = nullptr;
  cudaKernel_t log_sum_exp_ = nullptr;
};

}  // namespace
}  // namespace epo

#define EPO_EXPORT extern "C" __attribute__((visibility("default")))

// Called by device.cc, which finds it by name; the caller owns what it returns.
EPO_EXPORT epo::GpuKernels* EpoNewCudaKernels(c10::ScalarType dtype, int64_t head_dim) {
  return new epo::CudaKernels(dtype, head_dim);
}

// Compiles for GPUs of `capability`, which need not be here, and returns the size of the code.
// Throws c10::Error with the compiler's words.
EPO_EXPORT size_t EpoCompileCudaKernels(c10::ScalarType dtype, int64_t head_dim, int capability) {
  return epo::Compile(dtype, head_dim, capability).size();
}
