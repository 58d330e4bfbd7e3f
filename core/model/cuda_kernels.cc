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

// T is what tensors hold, W what is computed in, kSlots a lane's channels of a head.
constexpr char kSource[] = R"cuda(
typedef long long int64;

#if EPO_BFLOAT16
typedef unsigned short T;
typedef float W;
__device__ W Load(const T* x) { return __uint_as_float((unsigned)*x << 16); }
__device__ void Store(T* x, W value) {
  const unsigned bits = __float_as_uint(value);
  *x = value != value ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
#elif EPO_FLOAT16
typedef unsigned short T;
typedef float W;
__device__ W Load(const T* x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(*x));
  return value;
}
__device__ void Store(T* x, W value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  *x = bits;
}
#else
#if EPO_FLOAT64
typedef double T;
#else
typedef float T;
#endif
typedef T W;
__device__ W Load(const T* x) { return *x; }
__device__ void Store(T* x, W value) { *x = value; }
#endif

__device__ W Infinity() { return (W)__int_as_float(0x7f800000); }
__device__ float Exp(float x) { return expf(x); }
__device__ double Exp(double x) { return exp(x); }
__device__ float Log(float x) { return logf(x); }
__device__ double Log(double x) { return log(x); }

// One thread a pair of channels.
extern "C" __global__ void Rotate(T* x, const W* cos, const W* sin, int64 pairs, int heads,
                                  int head_dim, int half) {
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= pairs) return;
  const int64 head = i / half;
  const int channel = (int)(i % half);
  const int64 factor = head / heads * half + channel;
  T* at = x + head * head_dim + channel;
  const W a = Load(at);
  const W b = Load(at + half);
  Store(at, a * cos[factor] - b * sin[factor]);
  Store(at + half, b * cos[factor] + a * sin[factor]);
}

// One warp a row and head; the rows of a block are neighbours, so that most of what it reads is in
// the cache. The softmax is summed up on the way, relative to the largest score so far.
extern "C" __global__ void Attend(const T* query, const T* key, const T* value, const T* parent_key,
                                  const T* parent_value, int64 parent_stride, const int64* parent,
                                  const int64* first, const int64* base, const int64* split,
                                  const int64* tail_base, const int64* position, int64 rows, int heads, int kv_heads, int head_dim, W scale,
                                  T* out) {
  const int64 row = (int64)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const int head = blockIdx.y;
  const int64 offset = head / (heads / kv_heads) * head_dim;
  const int64 stride = (int64)kv_heads * head_dim;
  const int64 inherited = parent[row] * parent_stride + offset;
  const int64 changed = first[row];
  const int64 own = base[row];
  const int64 own_end = split[row];
  const int64 own_tail = tail_base[row];
  const int64 last = position[row];
  const int64 at = (row * heads + head) * head_dim;

  W q[kSlots], sums[kSlots];
  for (int s = 0; s < kSlots; ++s) {
    const int channel = threadIdx.x + 32 * s;
    q[s] = channel < head_dim ? Load(query + at + channel) * scale : 0;
    sums[s] = 0;
  }
  W largest = -Infinity();
  W total = 0;
  for (int64 j = 0; j <= last; ++j) {
    const T* k = parent_key + inherited + j * stride;
    const T* v = parent_value + inherited + j * stride;
    if (j >= changed) {
      const int64 of = (j == last ? row : (j < own_end ? own : own_tail) + j) * stride + offset;
      k = key + of;
      v = value + of;
    }
    W score = 0;
    for (int s = 0; s < kSlots; ++s) {
      const int channel = threadIdx.x + 32 * s;
      if (channel < head_dim) score += q[s] * Load(k + channel);
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) score += __shfl_xor_sync(~0u, score, lanes);
    const W before = largest;
    if (score > largest) largest = score;
    const W keep = Exp(before - largest);
    const W weight = Exp(score - largest);
    total = total * keep + weight;
    for (int s = 0; s < kSlots; ++s) {
      const int channel = threadIdx.x + 32 * s;
      if (channel < head_dim) sums[s] = sums[s] * keep + weight * Load(v + channel);
    }
  }
  for (int s = 0; s < kSlots; ++s) {
    const int channel = threadIdx.x + 32 * s;
    if (channel < head_dim) Store(out + at + channel, sums[s] / total);
  }
}

// One warp a row. The normalised row is float32's whatever T is, as in transformers; the product
// with the weight is T's.
extern "C" __global__ void RmsNorm(const T* x, const T* weight, int64 rows, int width,
                                   float epsilon, T* out) {
  const int64 row = (int64)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  x += row * width;
  out += row * width;
  W squares = 0;
  for (int i = threadIdx.x; i < width; i += 32) {
    const float value = (float)Load(x + i);
    squares += value * value;
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) squares += __shfl_xor_sync(~0u, squares, lanes);
  const float factor = rsqrt(squares / width + epsilon);
  for (int i = threadIdx.x; i < width; i += 32) {
    T normed;
    Store(&normed, (W)((float)Load(x + i) * factor));
    Store(out + i, Load(weight + i) * Load(&normed));
  }
}

// Joins sums of exponentials that are relative to different largest values.
__device__ void Join(W& largest, W& total, W other_largest, W other_total) {
  const W most = largest > other_largest ? largest : other_largest;
  if (most == -Infinity()) return;
  total = total * Exp(largest - most) + other_total * Exp(other_largest - most);
  largest = most;
}

// One block of 256 a row.
extern "C" __global__ void LogSumExp(const T* logits, int64 columns, W* out, int64 out_stride) {
  const T* x = logits + blockIdx.x * columns;
  W largest = -Infinity();
  W total = 0;
  for (int64 i = threadIdx.x; i < columns; i += 256) {
    const W value = Load(x + i);
    if (value > largest) {
      total = total * Exp(largest - value) + 1;
      largest = value;
    } else {
      total += Exp(value - largest);
    }
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    Join(largest, total, __shfl_xor_sync(~0u, largest, lanes), __shfl_xor_sync(~0u, total, lanes));
  }
  __shared__ W largests[8], totals[8];
  if (threadIdx.x % 32 == 0) {
    largests[threadIdx.x / 32] = largest;
    totals[threadIdx.x / 32] = total;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < 8; ++warp) Join(largest, total, largests[warp], totals[warp]);
  out[blockIdx.x * out_stride] = largest + Log(total);
}
)cuda";

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

// kSource as machine code for GPUs of compute capability `capability`, such as 90.
std::string Compile(c10::ScalarType dtype, int64_t head_dim, int capability) {
  const std::vector<std::string> options = {"--std=c++17",
                                            "--gpu-architecture=sm_" + std::to_string(capability),
                                            std::string("-D") + TypeName(dtype) + "=1",
                                            "-DkSlots=" + std::to_string((head_dim + 31) / 32)};
  std::vector<const char*> texts;
  for (const std::string& option : options) texts.push_back(option.c_str());
  nvrtcProgram program = nullptr;
  int error = nvrtcCreateProgram(&program, kSource, "epo_kernels.cu", 0, nullptr, nullptr);
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
