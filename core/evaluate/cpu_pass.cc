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

// A run of candidates, and where its predicting rows stand among all.
struct Block {
  size_t first = 0;
  size_t count = 0;
  int64_t first_predicting = 0;
};

// Cuts the candidates into blocks of about as many rows each, a multiple of `threads` of them if
// there are enough rows.
std::vector<Block> Cut(std::span<const Candidate> candidates, int64_t threads) {
  int64_t rows = 0;
  for (const Candidate& candidate : candidates) rows += std::ssize(candidate.tokens);
  int64_t blocks = (rows + BlockRows() - 1) / BlockRows();
  blocks = (blocks + threads - 1) / threads * threads;
  blocks = std::clamp<int64_t>(blocks, 1, std::max<int64_t>(1, rows / kLeastRows));
  std::vector<Block> result;
  int64_t before = 0;
  int64_t predicting = 0;
  for (size_t c = 0; c < candidates.size(); ++c) {
    // Block i begins with the first candidate from row i / blocks of all on.
    if (before * blocks >= std::ssize(result) * rows) result.push_back({c, 0, predicting});
    ++result.back().count;
    before += std::ssize(candidates[c].tokens);
    predicting += std::ssize(candidates[c].tokens) - 1;
  }
  return result;
}

class CpuPass final : public PackedPass {
 public:
  explicit CpuPass(const Model& model) : model_(model), wide_(model.weights()) {}

  PassResult Run(std::span<const Candidate> candidates, const Layout& layout,
                 EvaluatorCounters& counters) override {
    PassResult result;
    for (const Candidate& candidate : candidates) {
      const auto* parent = static_cast<const PreparedPrompt*>(candidate.parent);
      const int64_t before = candidate.first_changed - 1;
      result.change_surprisal.push_back(
          before < 0
              ? 0.0
              : -parent->log_probs.const_data_ptr<float>()[before * parent->log_probs.size(1) +
                                                           candidate.tokens[0]]);
    }
    result.targets.resize(candidates.size());
    result.surprisal.resize(layout.predicting);

    const int64_t threads = at::get_num_threads();
    const std::vector<Block> blocks = Cut(candidates, threads);
    while (std::ssize(workers_) < std::min<int64_t>(threads, std::ssize(blocks))) {
      workers_.push_back(std::make_unique<Worker>(model_, wide_));
    }
    const auto start = std::chrono::steady_clock::now();
    std::atomic<size_t> next = 0;
    at::parallel_for(0, std::ssize(workers_), 1, [&](int64_t begin, int64_t end) {
      const at::AutoGradMode no_grad(false);
      for (int64_t w = begin; w < end; ++w) {
        for (size_t i = next++; i < blocks.size(); i = next++) {
          workers_[w]->Run(candidates.subspan(blocks[i].first, blocks[i].count), model_.config(),
                           result.targets.data() + blocks[i].first,
                           result.surprisal.data() + blocks[i].first_predicting);
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

    void Run(std::span<const Candidate> candidates, const ModelConfig& config, double* targets,
             double* surprisal) {
      const Layout layout = LayOut(config, candidates);
      {
        const PhaseTimer timer(layer_seconds);
        block.RunLayers(candidates, layout, targets);
      }
      const PhaseTimer timer(head_seconds);
      block.RunHead(layout, surprisal);
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
