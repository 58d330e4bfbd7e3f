#include "tests/unit/core/host_kernels.h"

#include <ATen/ATen.h>

#include "tests/unit/core/host_block.h"

#define kSlots 3

namespace epo::host::f64 {
#define EPO_FLOAT64 1
#include "core/model/kernels.cu"
#undef EPO_FLOAT64
}  // namespace epo::host::f64

namespace epo::host::bf16 {
#define EPO_BFLOAT16 1
#include "core/model/kernels.cu"
#undef EPO_BFLOAT16
}  // namespace epo::host::bf16

namespace epo {
namespace {

// One dtype's kernels, which have other types of arguments than another's.
#define EPO_KERNELS_OF(type)                                                          \
  struct type {                                                                       \
    using T = host::type::T;                                                          \
    using W = host::type::W;                                                          \
    static void Rotate(auto... arguments) { host::type::Rotate(arguments...); }       \
    static void Attend(auto... arguments) { host::type::Attend(arguments...); }       \
    static void RmsNorm(auto... arguments) { host::type::RmsNorm(arguments...); }     \
    static void LogSumExp(auto... arguments) { host::type::LogSumExp(arguments...); } \
  }
EPO_KERNELS_OF(f64);
EPO_KERNELS_OF(bf16);
#undef EPO_KERNELS_OF

// The blocks and threads are cuda_kernels.cc's.
template <class Kernels>
class HostKernels final : public GpuKernels {
 public:
  void Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) override {
    const int64_t pairs = x.size(0) * x.size(1) * cos.size(1);
    block_.Run({Int((pairs + 255) / 256), 1}, {256, 1}, [&] {
      Kernels::Rotate(Data(x), Wide(cos), Wide(sin), pairs, Int(x.size(1)), Int(x.size(2)),
                      Int(cos.size(1)));
    });
  }

  at::Tensor Attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const at::Tensor& parent_key, const at::Tensor& parent_value,
                    const AttendedRows& attended) override {
    const int64_t rows = query.size(0);
    const int64_t heads = query.size(1);
    const int64_t head_dim = query.size(2);
    TORCH_CHECK(head_dim <= 32 * kSlots);
    at::Tensor out = at::empty({rows, heads * head_dim}, query.options());
    block_.Run({Int((rows + 7) / 8), Int(heads)}, {32, 8}, [&] {
      Kernels::Attend(Data(query), Data(key), Data(value), Data(parent_key, false),
                      Data(parent_value, false), parent_key.stride(0), Rows(attended.parent),
                      Rows(attended.first), Rows(attended.base), Rows(attended.split),
                      Rows(attended.tail_base), Rows(attended.position), rows, Int(heads),
                      Int(key.size(1)), Int(head_dim),
                      static_cast<typename Kernels::W>(1 / std::sqrt(double(head_dim))), Data(out));
    });
    return out;
  }

  at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) override {
    at::Tensor out = at::empty_like(x);
    block_.Run({Int((x.size(0) + 7) / 8), 1}, {32, 8}, [&] {
      Kernels::RmsNorm(Data(x), Data(weight), x.size(0), Int(x.size(1)),
                       static_cast<float>(epsilon), Data(out));
    });
    return out;
  }

  void LogSumExp(const at::Tensor& logits, const at::Tensor& out) override {
    block_.Run({Int(logits.size(0)), 1}, {256, 1},
               [&] { Kernels::LogSumExp(Data(logits), logits.size(1), Wide(out), out.stride(0)); });
  }

 private:
  static int Int(int64_t value) { return static_cast<int>(value); }
  static auto* Data(const at::Tensor& tensor, bool contiguous = true) {
    TORCH_CHECK(tensor.element_size() == sizeof(typename Kernels::T) &&
                (!contiguous || tensor.is_contiguous()));
    return static_cast<typename Kernels::T*>(tensor.data_ptr());
  }
  static auto* Wide(const at::Tensor& tensor) { return tensor.data_ptr<typename Kernels::W>(); }
  static const long long* Rows(const at::Tensor& tensor) {
    return reinterpret_cast<const long long*>(tensor.const_data_ptr<int64_t>());
  }

  host::Block block_;
};

}  // namespace

std::unique_ptr<GpuKernels> MakeHostKernels(c10::ScalarType dtype) {
  if (dtype == at::kDouble) return std::make_unique<HostKernels<f64>>();
  TORCH_CHECK(dtype == at::kBFloat16);
  return std::make_unique<HostKernels<bf16>>();
}

}  // namespace epo
