#include "core/evaluate/tensor_head.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "core/evaluate/tensors.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Rows of the head at a time, and columns. On a CPU the tile of logits stays in a cache; on a GPU
// it is large enough to fill the device and small enough never to matter in its memory.
struct HeadTile {
  int64_t rows;
  int64_t columns;
};
HeadTile TileOn(const c10::Device& device) {
  return device.is_cpu() ? HeadTile{256, 1024} : HeadTile{4096, 8192};
}

// The log-sum-exp of each row, into `out`.
void LogSumExp(GpuKernels* kernels, const at::Tensor& logits, at::Tensor out) {
  if (kernels != nullptr) {
    kernels->LogSumExp(logits, out);
  } else {
    out.copy_(at::logsumexp(logits.to(out.scalar_type()), {1}));
  }
}

}  // namespace

at::Tensor Surprisal(const Model& model, GpuKernels* kernels, const at::Tensor& normed,
                     const at::Tensor& labels) {
  const LinearWeights& head = model.weights().head;
  const c10::ScalarType wide = AccumulationType(model.weights().dtype());
  const int64_t vocab = head.weight.size(0);
  const HeadTile tile = TileOn(normed.device());
  std::vector<at::Tensor> parts;
  for (int64_t row = 0; row < normed.size(0); row += tile.rows) {
    const int64_t rows = std::min(tile.rows, normed.size(0) - row);
    const at::Tensor x = normed.narrow(0, row, rows);
    const at::Tensor label = labels.narrow(0, row, rows);
    const int64_t tiles = (vocab + tile.columns - 1) / tile.columns;
    const at::Tensor partial = at::empty({rows, tiles}, x.options().dtype(wide));
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t column = i * tile.columns;
      const int64_t columns = std::min(tile.columns, vocab - column);
      LinearWeights part{head.weight.narrow(0, column, columns), {}};
      if (head.bias.defined()) part.bias = head.bias.narrow(0, column, columns);
      LogSumExp(kernels, Apply(part, x), partial.select(1, i));
    }
    const at::Tensor total = at::logsumexp(partial, {1});
    at::Tensor own = (x.to(wide) * head.weight.index_select(0, label).to(wide)).sum(1);
    if (head.bias.defined()) own = own + head.bias.index_select(0, label).to(wide);
    parts.push_back(total - own);
  }
  return at::cat(parts);
}

// The greatest logit of each row of all tokens but `tokens` [rows]. Logits exist one tile at a
// time.
at::Tensor BestOther(const Model& model, const at::Tensor& normed, const at::Tensor& tokens) {
  const LinearWeights& head = model.weights().head;
  const c10::ScalarType wide = AccumulationType(model.weights().dtype());
  const int64_t vocab = head.weight.size(0);
  const int64_t width = TileOn(normed.device()).columns;
  at::Tensor best;
  for (int64_t column = 0; column < vocab; column += width) {
    const int64_t columns = std::min(width, vocab - column);
    LinearWeights part{head.weight.narrow(0, column, columns), {}};
    if (head.bias.defined()) part.bias = head.bias.narrow(0, column, columns);
    const at::Tensor ids = at::arange(column, column + columns, tokens.options()).unsqueeze(0);
    const at::Tensor here =
        Apply(part, normed)
            .to(wide)
            .masked_fill(ids.eq(tokens.unsqueeze(1)), -std::numeric_limits<double>::infinity())
            .amax({1});
    best = best.defined() ? at::maximum(best, here) : here;
  }
  return best;
}

}  // namespace epo
