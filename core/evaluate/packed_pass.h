// The model's part of a packed pass: targets, and surprisals of the rows that predict. Two ways to
// the same numbers. Includes torch.
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

struct PassResult {
  // f(t) of each candidate.
  std::vector<double> targets;
  // -log p(label) of each predicting row, in nats.
  std::vector<double> surprisal;
  // Of each candidate: -log p(first changed token), which its parent predicts; 0 for a change at
  // the first position.
  std::vector<double> change_surprisal;
};

// Keeps its buffers between calls. Used by one thread.
class PackedPass {
 public:
  virtual ~PackedPass() = default;
  // `layout` is LayOut's of `candidates`. Adds its seconds to `counters`. Throws c10::Error when
  // the device fails.
  virtual PassResult Run(std::span<const Candidate> candidates, const Layout& layout,
                         EvaluatorCounters& counters) = 0;
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
