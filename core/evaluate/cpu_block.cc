#include "core/evaluate/cpu_block.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/tensors.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Logits are made in tiles of this many vocabulary columns and reduced while they are in the cache:
// a block of the products' weights, or a few where rounding the rows would count.
int64_t HeadColumns() {
  static const int64_t columns = PackedProduct::ThisCpu().tiles ? 384 : 96;
  return columns;
}

}  // namespace

at::Tensor RowBuffer::Rows(int64_t rows, int64_t width) {
  if (!storage_.defined() || storage_.numel() < rows * width) {
    storage_ = at::empty({rows * width}, at::kFloat);
  }
  return storage_.narrow(0, 0, rows * width).view({rows, width});
}

void CpuBlock::RunLayers(std::span<const Candidate> candidates, const Layout& layout,
                         double* targets) {
  Embed(layout);
  for (int64_t layer = 0; layer < config_.layers && layout.rows_at[layer] > 0; ++layer) {
    RunLayer(layer, candidates, layout, targets);
  }
}

void CpuBlock::Embed(const Layout& layout) {
  const auto rows = static_cast<int64_t>(layout.ids.size());
  residual_ = residual_buffer_.Rows(rows, config_.hidden_size);
  residual_.copy_(weights_.embedding.index_select(0, ToDevice(layout.ids, weights_.device())));
}

void CpuBlock::Normalize(const NormWeights& norm, const at::Tensor& x, const at::Tensor& out) {
  const auto epsilon = static_cast<float>(config_.norm_epsilon);
  const at::Tensor& weight = wide_.Of(norm.weight);
  if (config_.norm == Norm::kLayerNorm) {
    kernels::LayerNorm(x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                       wide_.Of(norm.bias).const_data_ptr<float>(), epsilon, x.size(0), x.size(1),
                       out.mutable_data_ptr<float>());
  } else {
    kernels::RmsNorm(x.const_data_ptr<float>(), weight.const_data_ptr<float>(), epsilon, x.size(0),
                     x.size(1), out.mutable_data_ptr<float>());
  }
}

void CpuBlock::Multiply(const LinearWeights& linear, const at::Tensor& x, int64_t rows,
                        PackedProduct::Into into, at::Tensor out) {
  const float* bias =
      linear.bias.defined() ? wide_.Of(linear.bias).const_data_ptr<float>() : nullptr;
  product_.Multiply(x.const_data_ptr<float>(), rows, Stored(linear.weight), bias, into,
                    out.mutable_data_ptr<float>(), out.size(1));
}

void CpuBlock::Activate(at::Tensor hidden, const at::Tensor& factor) {
  auto* values = hidden.mutable_data_ptr<float>();
  if (config_.activation == Activation::kSilu && factor.defined()) {
    kernels::SiluTimes(values, factor.const_data_ptr<float>(), hidden.numel());
    return;
  }
  switch (config_.activation) {
    case Activation::kGeluTanh:
      kernels::GeluTanh(values, hidden.numel());
      break;
    case Activation::kGelu:
      hidden.copy_(at::gelu(hidden));
      break;
    case Activation::kRelu:
      hidden.relu_();
      break;
    case Activation::kSilu:
      hidden.mul_(hidden.sigmoid());
      break;
  }
  if (factor.defined()) hidden.mul_(factor);
}

void CpuBlock::RunLayer(int64_t layer, std::span<const Candidate> candidates, const Layout& layout,
                        double* targets) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t rows = layout.rows_at[layer];
  residual_ = residual_.narrow(0, 0, rows);
  at::Tensor normed = normed_.Rows(rows, config_.hidden_size);
  Normalize(weights.attention_norm, residual_, normed);
  const at::Tensor attended = Attention(layer, candidates, layout, normed);
  Multiply(weights.attention_output, attended, rows, PackedProduct::Into::kAdd, residual_);
  if (!config_.parallel_block) Normalize(weights.mlp_norm, residual_, normed);

  const at::Tensor hidden = hidden_.Rows(rows, config_.intermediate_size);
  Multiply(weights.mlp_input, normed, rows, PackedProduct::Into::kSet, hidden);
  at::Tensor factor;
  if (config_.gated_mlp) {
    factor = factor_.Rows(rows, config_.intermediate_size);
    Multiply(weights.mlp_factor, normed, rows, PackedProduct::Into::kSet, factor);
  }
  Activate(hidden, factor);
  for (size_t c = 0; c < candidates.size(); ++c) {
    const Objective& objective = candidates[c].parent->objective();
    if (objective.layer != layer) continue;
    targets[c] = hidden.const_data_ptr<float>()[layout.last_row[c] * config_.intermediate_size +
                                                objective.neuron];
  }
  Multiply(weights.mlp_output, hidden, rows, PackedProduct::Into::kAdd, residual_);
}

at::Tensor CpuBlock::Attention(int64_t layer, std::span<const Candidate> candidates,
                               const Layout& layout, const at::Tensor& normed) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t rows = layout.rows_at[layer];
  const int64_t kv_width = config_.kv_heads * config_.head_dim;
  const at::Tensor query = query_.Rows(normed.size(0), config_.heads * config_.head_dim);
  const at::Tensor key = key_.Rows(normed.size(0), kv_width);
  const at::Tensor value = value_.Rows(normed.size(0), kv_width);
  Multiply(weights.query, normed, rows, PackedProduct::Into::kSet, query);
  Multiply(weights.key, normed, rows, PackedProduct::Into::kSet, key);
  Multiply(weights.value, normed, rows, PackedProduct::Into::kSet, value);
  const auto rotate = [&](const at::Tensor& x, int64_t heads) {
    kernels::Rotate(x.mutable_data_ptr<float>(), layout.positions.data(),
                    weights_.rope_cos.const_data_ptr<float>(),
                    weights_.rope_sin.const_data_ptr<float>(), rows, heads, config_.head_dim,
                    config_.rotary_dim / 2);
  };
  rotate(query, config_.heads);
  rotate(key, config_.kv_heads);

  spans_.clear();
  for (size_t c = 0; c < candidates.size(); ++c) {
    const auto* parent = static_cast<const PreparedPrompt*>(candidates[c].parent);
    const float* parent_keys = parent->keys_values.const_data_ptr<float>() +
                               layer * 2 * static_cast<int64_t>(parent->ids.size()) * kv_width;
    spans_.push_back(
        {.parent_keys = parent_keys,
         .parent_values = parent_keys + static_cast<int64_t>(parent->ids.size()) * kv_width,
         .first = candidates[c].first_changed,
         .row = layout.first_row[c],
         .count = static_cast<int64_t>(candidates[c].tokens.size()) - 1,
         .last_row = layout.last_row[c] < rows ? layout.last_row[c] : -1});
  }
  const at::Tensor attended = attended_.Rows(normed.size(0), config_.heads * config_.head_dim);
  kernels::Attend(spans_, query.const_data_ptr<float>(), key.const_data_ptr<float>(),
                  value.const_data_ptr<float>(), config_.heads, config_.kv_heads, config_.head_dim,
                  attended.mutable_data_ptr<float>());
  return attended;
}

// Tiles of logits are reduced to a maximum and a sum, which are merged in the tiles' order, and
// perhaps the label's logit.
void CpuBlock::RunHead(const Layout& layout, double* surprisal) {
  const int64_t predicting = layout.predicting;
  if (predicting == 0) return;
  const at::Tensor normed = normed_.Rows(predicting, config_.hidden_size);
  Normalize(weights_.final_norm, residual_.narrow(0, 0, predicting), normed);
  maxima_.assign(predicting, -std::numeric_limits<float>::infinity());
  sums_.assign(predicting, 0);
  label_logits_.resize(predicting);
  const int64_t width = HeadColumns();
  for (int64_t column = 0; column < config_.vocab_size; column += width) {
    const int64_t columns = std::min(width, config_.vocab_size - column);
    LinearWeights part{weights_.head.weight.narrow(0, column, columns), {}};
    at::Tensor logits = logits_.Rows(predicting, columns);
    Multiply(part, normed, predicting, PackedProduct::Into::kSet, logits);
    if (weights_.head.bias.defined()) {
      logits.add_(wide_.Of(weights_.head.bias).narrow(0, column, columns));
    }
    const float* values = logits.const_data_ptr<float>();
    kernels::AddToLogSumExp(values, predicting, columns, maxima_.data(), sums_.data());
    for (int64_t r = 0; r < predicting; ++r) {
      const int64_t label = layout.labels[r] - column;
      if (label >= 0 && label < columns) label_logits_[r] = values[r * columns + label];
    }
  }
  for (int64_t r = 0; r < predicting; ++r) {
    surprisal[r] = maxima_[r] + std::log(double{sums_[r]}) - label_logits_[r];
  }
}

}  // namespace epo
