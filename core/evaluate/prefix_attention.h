// Attention of many rows to a prefix that they share, on one thread of a CPU, as matrix products.
// Includes torch.
#ifndef EPO_CORE_EVALUATE_PREFIX_ATTENTION_H_
#define EPO_CORE_EVALUATE_PREFIX_ATTENTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/evaluate/fixed_tokens.h"
#include "core/evaluate/kernels.h"
#include "core/evaluate/layout.h"
#include "core/model/model_config.h"
#include "core/model/packed_product.h"

namespace epo {

// Every query of every row meets the same keys, so that scores and mixtures are matrix products; a
// stretch of keys at a time, whose scores stay in the cache. Keeps its buffers between calls; one
// thread at a time. `config` must outlive it.
class PrefixAttention {
 public:
  explicit PrefixAttention(const ModelConfig& config) : config_(config) {}

  // For the rows of the items of `layout`, of `layer`, that have a prefix. `query` is [rows, heads
  // * head_dim], rotated. The result is valid until the next call.
  kernels::PartialAttention Run(int64_t layer, std::span<const PassItem> items,
                                const Layout& layout, const float* query, PackedProduct& product);

 private:
  void RunHead(int64_t layer, int64_t kv_head, const SharedPrefix& prefix,
               std::span<const int64_t> rows, const float* query, PackedProduct& product);

  const ModelConfig& config_;
  // Of all rows, as PartialAttention's.
  std::vector<float> greatest_, sum_, mixed_;
  // Of the rows behind one prefix, one head of keys: [rows * group, ..].
  std::vector<float> queries_, scores_, head_greatest_, head_sum_, head_mixed_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PREFIX_ATTENTION_H_
