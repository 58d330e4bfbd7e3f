// A block of candidates on one thread of a CPU, through the whole model. Includes torch.
#ifndef EPO_CORE_EVALUATE_CPU_BLOCK_H_
#define EPO_CORE_EVALUATE_CPU_BLOCK_H_

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/kernels.h"
#include "core/evaluate/layout.h"
#include "core/evaluate/prefix_attention.h"
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
  // What Rows() gave last.
  const float* data() const { return storage_.const_data_ptr<float>(); }

 private:
  at::Tensor storage_;
};

// Every row that a block of a few hundred has stays in the thread's own caches between one sweep
// and the next, and no thread waits for another before its block is done. Keeps its buffers between
// calls; one thread at a time. `model` and `wide` must outlive it.
class CpuBlock {
 public:
  CpuBlock(const Model& model, const WideVectors& wide)
      : config_(model.config()), weights_(model.weights()), wide_(wide), prefix_(config_) {}

  // The layers over `items`, whose layout is `layout`; writes what is read in them to `numbers`, of
  // the whole pass.
  void RunLayers(std::span<const PassItem> items, const Layout& layout, double* numbers);

  // After RunLayers(): surprisals, and what is read from logits, to `numbers`.
  void RunHead(const Layout& layout, double* numbers);

 private:
  void Embed(const Layout& layout);
  void Normalize(const NormWeights& norm, const at::Tensor& x, const at::Tensor& out);
  // `out` (=, +=) x W^T + b over the first `rows` rows; the matrices are padded to whole tiles.
  void Multiply(const LinearWeights& linear, const at::Tensor& x, int64_t rows,
                PackedProduct::Into into, at::Tensor out);
  void Activate(at::Tensor hidden, const at::Tensor& factor);
  void RunLayer(int64_t layer, std::span<const PassItem> items, const Layout& layout,
                double* numbers);
  at::Tensor Attention(int64_t layer, std::span<const PassItem> items, const Layout& layout,
                       const at::Tensor& normed);
  // The reads of `x` at a site.
  void ReadSite(Read::Site site, int64_t layer, std::span<const PassItem> items,
                const Layout& layout, const at::Tensor& x, double* numbers);
  // The softmax weight that `read` asks for, after Attention().
  double AttentionWeight(const Layout::RowRead& read, const PassItem& item, const Layout& layout);
  // What the head reads for `rows`.
  at::Tensor HeadInput(const std::vector<int64_t>& rows, bool is_prefix);
  // A tile of logits from `column` on.
  at::Tensor Logits(const at::Tensor& normed, int64_t column, int64_t columns);
  void ReadLogits(const Layout& layout, double* numbers);
  void ReadSurprisals(const Layout& layout, double* numbers);

  const ModelConfig& config_;
  const Weights& weights_;
  const WideVectors& wide_;
  PackedProduct product_;
  PrefixAttention prefix_;
  RowBuffer residual_buffer_, normed_, query_, key_, value_, attended_, hidden_, factor_, logits_;
  at::Tensor residual_;
  std::vector<kernels::AttentionSpan> spans_;
  std::vector<float> maxima_, sums_, label_logits_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_CPU_BLOCK_H_
