// A block of candidates on one thread of a CPU, through the whole model. Includes torch.
#ifndef EPO_CORE_EVALUATE_CPU_BLOCK_H_
#define EPO_CORE_EVALUATE_CPU_BLOCK_H_

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/kernels.h"
#include "core/evaluate/layout.h"
#include "core/evaluate/wide_vectors.h"
#include "core/model/model.h"
#include "core/model/packed_product.h"

namespace epo {

// A row-major float32 matrix that grows and is never given back: after the first steps no pass
// allocates.
class RowBuffer {
 public:
  // [rows, width], contents undefined.
  at::Tensor Rows(int64_t rows, int64_t width);

 private:
  at::Tensor storage_;
};

// Every row that a block of a few hundred has stays in the thread's own caches between one sweep
// and the next, and no thread waits for another before its block is done. Keeps its buffers between
// calls; one thread at a time. `model` and `wide` must outlive it.
class CpuBlock {
 public:
  CpuBlock(const Model& model, const WideVectors& wide)
      : config_(model.config()), weights_(model.weights()), wide_(wide) {}

  // The layers over `candidates`, whose layout is `layout`; writes each one's f(t) to `targets`,
  // [candidates.size()].
  void RunLayers(std::span<const Candidate> candidates, const Layout& layout, double* targets);

  // After RunLayers(): -log p(label) of each predicting row, in nats, to `surprisal`,
  // [layout.predicting].
  void RunHead(const Layout& layout, double* surprisal);

 private:
  void Embed(const Layout& layout);
  void Normalize(const NormWeights& norm, const at::Tensor& x, const at::Tensor& out);
  // `out` (=, +=) x W^T + b over the first `rows` rows; the matrices are padded to whole tiles.
  void Multiply(const LinearWeights& linear, const at::Tensor& x, int64_t rows,
                PackedProduct::Into into, at::Tensor out);
  void Activate(at::Tensor hidden, const at::Tensor& factor);
  void RunLayer(int64_t layer, std::span<const Candidate> candidates, const Layout& layout,
                double* targets);
  at::Tensor Attention(int64_t layer, std::span<const Candidate> candidates, const Layout& layout,
                       const at::Tensor& normed);

  const ModelConfig& config_;
  const Weights& weights_;
  const WideVectors& wide_;
  PackedProduct product_;
  RowBuffer residual_buffer_, normed_, query_, key_, value_, attended_, hidden_, factor_, logits_;
  at::Tensor residual_;
  std::vector<kernels::AttentionSpan> spans_;
  std::vector<float> maxima_, sums_, label_logits_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_CPU_BLOCK_H_
