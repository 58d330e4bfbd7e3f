// The model's part of a packed pass: the numbers that candidates need. Two ways to the same
// numbers. Includes torch.
#ifndef EPO_CORE_EVALUATE_PACKED_PASS_H_
#define EPO_CORE_EVALUATE_PACKED_PASS_H_

#include <memory>
#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/gpu_help.h"
#include "core/evaluate/layout.h"
#include "core/model/model.h"

namespace epo {

// A token that a row of a parent's log-probabilities predicts.
struct Change {
  const PreparedBranch* parent = nullptr;
  int64_t row = 0;
  TokenId token = 0;
};

struct PassResult {
  // As PassItem::numbers_at says: surprisals in nats, and reads.
  std::vector<double> numbers;
  // Of each change: -log p, in nats.
  std::vector<double> changes;
};

// Keeps its buffers between calls. Used by one thread.
class PackedPass {
 public:
  virtual ~PackedPass() = default;
  // `layout` is LayOut's of `items`, which have `numbers` numbers together. Adds its seconds to
  // `counters`. Throws c10::Error when the device fails.
  virtual PassResult Run(std::span<const PassItem> items, std::span<const Change> changes,
                         const Layout& layout, size_t numbers, EvaluatorCounters& counters) = 0;
};

// What the sizes of a pass are rounded up to.
struct PassBuckets {
  int64_t rows = 1;
  int64_t candidates = 1;
  int64_t parents = 1;
};

// By tensor operations: any device, any dtype. `help` must outlive it.
std::unique_ptr<PackedPass> MakeTensorPass(const Model& model, const GpuHelp& help,
                                           const PassBuckets& buckets);

// By our own matrix products and row kernels: a CPU model of up to 32 bits, computing in float32.
std::unique_ptr<PackedPass> MakeCpuPass(const Model& model);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PACKED_PASS_H_
