// Micro-benchmarks of the packed pass's kernels on the CPU, each beside what torch offers for the
// same work: `epo-kernels --benchmark_enable_random_interleaving=true`. Shapes are SmolLM2-135M's,
// 416 rows, one thread.

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <benchmark/benchmark.h>

#include <vector>

#include "core/evaluate/kernels.h"
#include "core/model/linear.h"
#include "core/model/packed_product.h"

namespace epo {
namespace {

constexpr int64_t kRows = 416;
constexpr int64_t kHidden = 576;
constexpr int64_t kIntermediate = 1536;
constexpr int64_t kVocab = 49152;
constexpr int64_t kHeads = 9;
constexpr int64_t kKvHeads = 3;
constexpr int64_t kHeadDim = 64;

at::Tensor Random(std::initializer_list<int64_t> shape, at::ScalarType dtype = at::kFloat) {
  return at::rand(shape).sub(0.5).to(dtype);
}

void CountFlops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void CountElements(benchmark::State& state, int64_t elements) {
  state.SetItemsProcessed(state.iterations() * elements);
}

// Arguments: in, out.
template <at::ScalarType dtype>
void OwnProduct(benchmark::State& state) {
  const at::Tensor x = Random({kRows, state.range(0)});
  const at::Tensor w = Random({state.range(1), state.range(0)}, dtype);
  at::Tensor y = Random({kRows, state.range(1)});
  PackedProduct product;
  for (auto _ : state) {
    product.Multiply(x.const_data_ptr<float>(), kRows, Stored(w), nullptr,
                     PackedProduct::Into::kSet, y.mutable_data_ptr<float>(), y.size(1));
  }
  CountFlops(state, 2.0 * kRows * static_cast<double>(w.numel()));
}

void LibraryProduct(benchmark::State& state) {
  const at::AutoGradMode no_grad(false);
  const at::Tensor x = Random({kRows, state.range(0)});
  const at::Tensor w = Random({state.range(1), state.range(0)});
  at::Tensor y = Random({kRows, state.range(1)});
  for (auto _ : state) at::mm_out(y, x, w.t());
  CountFlops(state, 2.0 * kRows * static_cast<double>(w.numel()));
}

void OwnRmsNorm(benchmark::State& state) {
  const at::Tensor x = Random({kRows, kHidden});
  const at::Tensor weight = Random({kHidden});
  at::Tensor y = at::empty_like(x);
  for (auto _ : state) {
    kernels::RmsNorm(x.const_data_ptr<float>(), weight.const_data_ptr<float>(), 1e-5F, kRows,
                     kHidden, y.mutable_data_ptr<float>());
  }
  CountElements(state, x.numel());
}

void LibraryRmsNorm(benchmark::State& state) {
  const at::AutoGradMode no_grad(false);
  const at::Tensor x = Random({kRows, kHidden});
  const at::Tensor weight = Random({kHidden});
  for (auto _ : state) benchmark::DoNotOptimize(at::rms_norm(x, {kHidden}, weight, 1e-5));
  CountElements(state, x.numel());
}

void OwnSiluTimes(benchmark::State& state) {
  at::Tensor x = Random({kRows, kIntermediate});
  const at::Tensor factor = Random({kRows, kIntermediate});
  for (auto _ : state) {
    kernels::SiluTimes(x.mutable_data_ptr<float>(), factor.const_data_ptr<float>(), x.numel());
  }
  CountElements(state, x.numel());
}

void LibrarySiluTimes(benchmark::State& state) {
  const at::AutoGradMode no_grad(false);
  const at::Tensor x = Random({kRows, kIntermediate});
  const at::Tensor factor = Random({kRows, kIntermediate});
  for (auto _ : state) benchmark::DoNotOptimize(at::silu(x).mul_(factor));
  CountElements(state, x.numel());
}

void OwnGeluTanh(benchmark::State& state) {
  at::Tensor x = Random({kRows, kIntermediate});
  for (auto _ : state) kernels::GeluTanh(x.mutable_data_ptr<float>(), x.numel());
  CountElements(state, x.numel());
}

void OwnRotate(benchmark::State& state) {
  at::Tensor x = Random({kRows, kHeads * kHeadDim});
  const at::Tensor table = Random({16, kHeadDim / 2});
  const std::vector<int64_t> positions(kRows, 7);
  for (auto _ : state) {
    kernels::Rotate(x.mutable_data_ptr<float>(), positions.data(), table.const_data_ptr<float>(),
                    table.const_data_ptr<float>(), kRows, kHeads, kHeadDim, kHeadDim / 2);
  }
  CountElements(state, x.numel());
}

// Candidates of 12 tokens, changed in the middle.
void OwnAttend(benchmark::State& state) {
  const at::Tensor query = Random({kRows, kHeads * kHeadDim});
  const at::Tensor key = Random({kRows, kKvHeads * kHeadDim});
  const at::Tensor parent = Random({12, kKvHeads * kHeadDim});
  at::Tensor out = at::empty_like(query);
  std::vector<kernels::AttentionSpan> spans;
  for (int64_t row = 0; row + 6 <= kRows; row += 6) {
    spans.push_back({.parent_keys = parent.const_data_ptr<float>(),
                     .parent_values = parent.const_data_ptr<float>(),
                     .inherited = 6,
                     .row = row,
                     .count = 6,
                     .tail_row = 0,
                     .tail_count = 0});
  }
  for (auto _ : state) {
    kernels::Attend(spans, {}, query.const_data_ptr<float>(), key.const_data_ptr<float>(),
                    key.const_data_ptr<float>(), kHeads, kKvHeads, kHeadDim,
                    out.mutable_data_ptr<float>());
  }
  CountElements(state, kRows);
}

// 96 columns at a time, as the head makes them.
void OwnLogSumExp(benchmark::State& state) {
  constexpr int64_t kColumns = 96;
  const at::Tensor logits = Random({kRows, kColumns});
  std::vector<float> maxima(kRows, 0), sums(kRows, 0);
  for (auto _ : state) {
    kernels::AddToLogSumExp(logits.const_data_ptr<float>(), kRows, kColumns, maxima.data(),
                            sums.data());
  }
  CountElements(state, logits.numel());
}

void LibraryLogSumExp(benchmark::State& state) {
  const at::AutoGradMode no_grad(false);
  const at::Tensor logits = Random({kRows, kVocab});
  for (auto _ : state) benchmark::DoNotOptimize(at::logsumexp(logits, {1}));
  CountElements(state, logits.numel());
}

void Register() {
  using benchmark::RegisterBenchmark;
  const std::pair<const char*, void (*)(benchmark::State&)> products[] = {
      {"product/own/float32", OwnProduct<at::kFloat>},
      {"product/own/bfloat16", OwnProduct<at::kBFloat16>},
      {"product/own/float16", OwnProduct<at::kHalf>},
      {"product/library/float32", LibraryProduct}};
  for (const auto& [name, run] : products) {
    RegisterBenchmark(name, run)
        ->Args({kHidden, kHidden})
        ->Args({kHidden, kKvHeads * kHeadDim})
        ->Args({kHidden, kIntermediate})
        ->Args({kIntermediate, kHidden})
        ->Args({kHidden, kVocab / 8});
  }
  RegisterBenchmark("rms_norm/own", OwnRmsNorm);
  RegisterBenchmark("rms_norm/library", LibraryRmsNorm);
  RegisterBenchmark("silu_times/own", OwnSiluTimes);
  RegisterBenchmark("silu_times/library", LibrarySiluTimes);
  RegisterBenchmark("gelu_tanh/own", OwnGeluTanh);
  RegisterBenchmark("rotate/own", OwnRotate);
  RegisterBenchmark("attend/own", OwnAttend);
  RegisterBenchmark("log_sum_exp/own", OwnLogSumExp);
  RegisterBenchmark("log_sum_exp/library", LibraryLogSumExp);
}

}  // namespace
}  // namespace epo

int main(int argc, char** argv) {
  // A block is one thread's.
  at::set_num_threads(1);
  epo::Register();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
