#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "core/evaluate/cpu_block.h"
#include "core/evaluate/packed_pass.h"
#include "core/evaluate/phase_timer.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/wide_vectors.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// The most rows of a block: each reads all weights once, which is little work a row from here on,
// and more rows would leave the caches. Where weights are multiplied by tiles that work counts
// longer, and rows are half the size.
int64_t BlockRows() {
  static const int64_t rows = PackedProduct::ThisCpu().tiles ? 1024 : 512;
  return rows;
}
// The least that are worth a thread of their own.
constexpr int64_t kLeastRows = 32;

// A run of items.
struct Block {
  size_t first = 0;
  size_t count = 0;
};

// Cuts the items into blocks of about as many rows each, a multiple of `threads` of them if there
// are enough rows.
std::vector<Block> Cut(std::span<const PassItem> items, int64_t threads) {
  int64_t rows = 0;
  for (const PassItem& item : items) rows += item.rows();
  int64_t blocks = (rows + BlockRows() - 1) / BlockRows();
  blocks = (blocks + threads - 1) / threads * threads;
  blocks = std::clamp<int64_t>(blocks, 1, std::max<int64_t>(1, rows / kLeastRows));
  std::vector<Block> result;
  int64_t before = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    // Block b begins with the first item from row b / blocks of all on.
    if (result.empty() || (before * blocks >= std::ssize(result) * rows && rows > 0)) {
      result.push_back({i, 0});
    }
    ++result.back().count;
    before += items[i].rows();
  }
  return result;
}

class CpuPass final : public PackedPass {
 public:
  explicit CpuPass(const Model& model) : model_(model), wide_(model.weights()) {}

  PassResult Run(std::span<const PassItem> items, std::span<const Change> changes,
                 const Layout& /*layout*/, size_t numbers, EvaluatorCounters& counters) override {
    PassResult result;
    for (const Change& change : changes) {
      const at::Tensor& log_probs = change.parent->log_probs;
      result.changes.push_back(
          -log_probs.const_data_ptr<float>()[change.row * log_probs.size(1) + change.token]);
    }
    result.numbers.resize(numbers);

    const int64_t threads = at::get_num_threads();
    const std::vector<Block> blocks = Cut(items, threads);
    while (std::ssize(workers_) < std::min<int64_t>(threads, std::ssize(blocks))) {
      workers_.push_back(std::make_unique<Worker>(model_, wide_));
    }
    const auto start = std::chrono::steady_clock::now();
    std::atomic<size_t> next = 0;
    at::parallel_for(0, std::ssize(workers_), 1, [&](int64_t begin, int64_t end) {
      const at::AutoGradMode no_grad(false);
      for (int64_t w = begin; w < end; ++w) {
        for (size_t i = next++; i < blocks.size(); i = next++) {
          workers_[w]->Run(items.subspan(blocks[i].first, blocks[i].count), model_.config(),
                           result.numbers.data());
        }
      }
    });
    ShareTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
              counters);
    return result;
  }

 private:
  struct Worker {
    Worker(const Model& model, const WideVectors& wide) : block(model, wide) {}

    void Run(std::span<const PassItem> items, const ModelConfig& config, double* numbers) {
      const Layout layout = LayOut(config, items);
      {
        const PhaseTimer timer(layer_seconds);
        block.RunLayers(items, layout, numbers);
      }
      const PhaseTimer timer(head_seconds);
      block.RunHead(layout, numbers);
    }

    CpuBlock block;
    double layer_seconds = 0;
    double head_seconds = 0;
  };

  // Threads are in different phases at once: each phase gets its part of the `seconds` that passed.
  void ShareTime(double seconds, EvaluatorCounters& counters) {
    double layers = 0;
    double head = 0;
    for (const auto& worker : workers_) {
      layers += std::exchange(worker->layer_seconds, 0);
      head += std::exchange(worker->head_seconds, 0);
    }
    if (layers + head <= 0) return;
    counters.layer_seconds += seconds * layers / (layers + head);
    counters.head_seconds += seconds * head / (layers + head);
  }

  const Model& model_;
  const WideVectors wide_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace

std::unique_ptr<PackedPass> MakeCpuPass(const Model& model) {
  return std::make_unique<CpuPass>(model);
}

}  // namespace epo
