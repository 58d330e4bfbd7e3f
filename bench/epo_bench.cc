// Measures steps of the search on a model, without a server: `epo-bench step --model DIR --layer L
// --neuron K`.

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <sys/resource.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <set>

#include "core/evaluate/flops.h"
#include "core/model/device.h"
#include "core/model/linear.h"
#include "core/model/model.h"
#include "core/model/weights.h"
#include "core/search/run.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using Json = nlohmann::ordered_json;

struct BenchOptions {
  std::string model;
  ModelOptions model_options;
  NeuronTerm neuron;
  // Fixed tokens before the prompt.
  int prefix = 0;
  SearchOptions search;
  int jobs = 1;
  // Steps before the timed ones.
  int warm_up = 1;
  // A Chrome trace of one more step goes there, if not empty.
  std::string trace;
};

Objective ObjectiveOf(const BenchOptions& options) {
  Objective objective = NeuronObjective(options.neuron.layer, options.neuron.neuron);
  if (options.prefix == 0) return objective;
  Context& context = objective.contexts.emplace_back();
  for (int i = 0; i < options.prefix; ++i) context.prefix.push_back(100 + 7 * i % 1000);
  return objective;
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Percentile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const auto index = static_cast<size_t>(fraction * static_cast<double>(values.size() - 1) + 0.5);
  return values[index];
}

// A GPU works behind the host.
void WaitFor(const c10::Device& device) {
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  }
}

// y = x W^T by our own kernel, the rows spread over the threads.
void MultiplyRows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y) {
  const auto* from = x.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  at::parallel_for(0, x.size(0), /*grain_size=*/32, [&](int64_t begin, int64_t end) {
    PackedProduct().Multiply(from + begin * x.size(1), end - begin, Stored(w), /*bias=*/nullptr,
                             PackedProduct::Into::kSet, to + begin * y.size(1), y.size(1));
  });
}

// Multiplications and additions a second of plain matrix products of a layer's and the head's
// shapes with `rows` rows, in the type that this machine multiplies the model in, by torch or by
// our own kernel, whichever is the faster at each shape: the roof over a step.
double MatmulRate(const Model& model, int64_t rows) {
  const at::AutoGradMode no_grad(false);
  const ModelConfig& config = model.config();
  const Weights& weights = model.weights();
  const bool is_cpu = weights.device().is_cpu();
  // torch emulates what the CPU does not multiply.
  const bool native = !is_cpu || weights.dtype() == at::kFloat || weights.dtype() == at::kDouble ||
                      (weights.dtype() == at::kBFloat16 && CpuComputesBFloat16());
  const at::ScalarType dtype = native ? weights.dtype() : at::kFloat;
  const auto options = at::TensorOptions(dtype).device(weights.device());
  double flops = 0;
  double seconds = 0;
  const auto measure = [&](int64_t in, int64_t out, double times) {
    const at::Tensor x = at::rand({rows, in}, options);
    const at::Tensor w = at::rand({out, in}, options);
    at::Tensor y = at::mm(x, w.t());
    const at::Tensor own_x = x.to(weights.compute_dtype());
    const at::Tensor own_w = w.to(weights.dtype());
    at::Tensor own_y = y.to(weights.compute_dtype());
    std::vector<double> library, own;
    // On a GPU the host's part of a call must not be seen.
    const int calls = is_cpu ? 1 : 50;
    WaitFor(w.device());
    for (int i = 0; i < 7; ++i) {
      const double start = Now();
      for (int call = 0; call < calls; ++call) at::mm_out(y, x, w.t());
      WaitFor(w.device());
      const double middle = Now();
      library.push_back((middle - start) / calls);
      if (!UsesPackedProduct(own_w)) continue;
      MultiplyRows(own_x, own_w, own_y);
      own.push_back(Now() - middle);
    }
    flops += times * 2.0 * static_cast<double>(rows * in * out);
    const double best = Percentile(library, 0.5);
    seconds += times * (own.empty() ? best : std::min(best, Percentile(own, 0.5)));
  };
  const auto layers = static_cast<double>(config.layers);
  measure(config.hidden_size, config.heads * config.head_dim, 2 * layers);
  measure(config.hidden_size, config.kv_heads * config.head_dim, 2 * layers);
  measure(config.hidden_size, config.intermediate_size, (config.gated_mlp ? 2 : 1) * layers);
  measure(config.intermediate_size, config.hidden_size, layers);
  // The head in parts, as nobody would make all its logits at once.
  constexpr int64_t kPart = 4096;
  measure(config.hidden_size, kPart, static_cast<double>(config.vocab_size) / kPart);
  return flops / seconds;
}

// Runs `step` and writes what torch and the device did in it to `path`.
template <typename Step>
absl::Status Trace(const std::string& path, Step step) {
  namespace profiler = torch::autograd::profiler;
  const profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
  const std::set<profiler::ActivityType> activities = {profiler::ActivityType::CPU,
                                                       profiler::ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  absl::Status status = step();
  profiler::disableProfiler()->save(path);
  return status;
}

absl::StatusOr<Json> Measure(const BenchOptions& options) {
  const double load_start = Now();
  auto model = Model::Load(options.model, options.model_options);
  if (!model.ok()) return model.status();
  const double load_seconds = Now() - load_start;
  const auto evaluator = Evaluator::Create(**model, {});
  std::vector<std::unique_ptr<Run>> owned;
  std::vector<Run*> runs;
  for (int j = 0; j < options.jobs; ++j) {
    SearchOptions search = options.search;
    // One more is traced, and none is a job's last, which prepares no gradients.
    search.iterations = options.warm_up + options.search.iterations + 2;
    search.seed += j;
    auto run = Run::Create(**model, ObjectiveOf(options), search);
    if (!run.ok()) return run.status();
    owned.push_back(*std::move(run));
    runs.push_back(owned.back().get());
  }
  const auto step = [&]() { return AdvanceRound(*evaluator, runs).status(); };
  // The first step also reads the initial parents and warms up what is cached.
  for (int i = 0; i < options.warm_up; ++i) {
    if (absl::Status status = step(); !status.ok()) return status;
  }
  const EvaluatorCounters before = evaluator->counters();
  std::vector<double> steps;
  for (int i = 0; i < options.search.iterations; ++i) {
    const double start = Now();
    if (absl::Status status = step(); !status.ok()) return status;
    steps.push_back(Now() - start);
  }
  const EvaluatorCounters after = evaluator->counters();
  if (!options.trace.empty()) {
    if (absl::Status status = Trace(options.trace, step); !status.ok()) return status;
  }
  double total = 0;
  for (const double step : steps) total += step;
  const auto count = static_cast<double>(steps.size());
  const double flops = static_cast<double>(after.matmul_flops - before.matmul_flops);
  const auto rows = static_cast<double>(after.rows - before.rows);
  const auto exhaustive = static_cast<double>(after.exhaustive_rows - before.exhaustive_rows);
  const double rate = MatmulRate(**model, static_cast<int64_t>(rows / count));
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return Json{
      {"model", (*model)->name()},
      {"device", (*model)->device()},
      {"dtype", (*model)->dtype()},
      {"threads", at::get_num_threads()},
      {"layer", options.neuron.layer},
      {"jobs", options.jobs},
      {"tokens", options.search.tokens},
      {"prefix", options.prefix},
      {"iterations", steps.size()},
      {"load_seconds", load_seconds},
      {"step_seconds_median", Percentile(steps, 0.5)},
      {"step_seconds_p90", Percentile(steps, 0.9)},
      {"candidates_per_second", static_cast<double>(after.candidates - before.candidates) / total},
      {"rows_share", rows / exhaustive},
      {"head_rows_share", static_cast<double>(after.head_rows - before.head_rows) / exhaustive},
      {"prepared_prompts_per_step",
       static_cast<double>(after.prepared_prompts - before.prepared_prompts) / count},
      {"matmul_gflop_per_step", flops / count / 1e9},
      {"gflops", flops / total / 1e9},
      {"matmul_rate_gflops", rate / 1e9},
      {"roofline_seconds", flops / rate / count},
      {"roofline_share", flops / rate / total},
      {"phase_share",
       {{"prepare", (after.prepare_seconds - before.prepare_seconds) / total},
        {"substitutes", (after.substitute_seconds - before.substitute_seconds) / total},
        {"layers", (after.layer_seconds - before.layer_seconds) / total},
        {"head", (after.head_seconds - before.head_seconds) / total}}},
      {"peak_rss_bytes", int64_t{usage.ru_maxrss} * 1024}};
}

}  // namespace
}  // namespace epo

int main(int argc, char** argv) {
  CLI::App app("Benchmarks of the EPO core.");
  app.require_subcommand(1);
  epo::BenchOptions options;
  std::string output = "table";
  CLI::App* step =
      app.add_subcommand("step", "Time search steps: each of JOBS jobs advances one iteration.");
  step->add_option("--model", options.model, "Checkpoint directory")->required();
  step->add_option("--layer", options.neuron.layer)->required();
  step->add_option("--neuron", options.neuron.neuron)->required();
  step->add_option("--device", options.model_options.device)->capture_default_str();
  step->add_option("--dtype", options.model_options.dtype)->capture_default_str();
  options.search.iterations = 10;
  step->add_option("--iterations", options.search.iterations, "Steps to time")
      ->capture_default_str();
  step->add_option("--warm-up", options.warm_up, "Steps before those")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  step->add_option("--trace", options.trace,
                   "Write what torch and the device do in one more step as a Chrome trace to FILE");
  step->add_option("--jobs", options.jobs, "Jobs a round")->capture_default_str();
  step->add_option("--tokens", options.search.tokens)->capture_default_str();
  step->add_option("--prefix", options.prefix, "Fixed tokens before the prompt")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  step->add_option("--population", options.search.population)->capture_default_str();
  step->add_option("--children", options.search.children_per_parent)->capture_default_str();
  step->add_option("--seed", options.search.seed)->capture_default_str();
  step->add_option("-o,--output", output)
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto result = epo::Measure(options);
  if (!result.ok()) {
    std::cerr << "epo-bench: " << result.status().message() << "\n";
    return 1;
  }
  if (output == "json") {
    std::cout << result->dump(2) << "\n";
  } else {
    for (const auto& [key, value] : result->items()) std::cout << key << ": " << value << "\n";
  }
  return 0;
}
