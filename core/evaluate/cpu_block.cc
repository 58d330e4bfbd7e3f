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

// What `read` reads from a row of its site.
double ReadRow(const Read& read, const ModelTarget& target, const float* x, int64_t width) {
  if (read.kind == Read::Kind::kElement) return x[read.which];
  const float* vector = target.vectors()[read.vector].const_data_ptr<float>();
  const double dot = kernels::DotWide(x, vector, width);
  if (read.kind == Read::Kind::kDot) return dot;
  if (read.kind == Read::Kind::kCosine) return dot / std::sqrt(kernels::SquaresWide(x, 0, width));
  const double mean = kernels::SumWide(x, width) / static_cast<double>(width);
  const double variance = kernels::SquaresWide(x, mean, width) / static_cast<double>(width - 1);
  return (dot - mean * kernels::SumWide(vector, width)) / std::sqrt(variance);
}

}  // namespace

at::Tensor RowBuffer::Rows(int64_t rows, int64_t width) {
  if (!storage_.defined() || storage_.numel() < rows * width) {
    storage_ = at::empty({rows * width}, at::kFloat);
  }
  return storage_.narrow(0, 0, rows * width).view({rows, width});
}

void CpuBlock::RunLayers(std::span<const PassItem> items, const Layout& layout, double* numbers) {
  if (layout.ids.empty()) return;
  Embed(layout);
  ReadSite(Read::Site::kResidual, 0, items, layout, residual_, numbers);
  for (int64_t layer = 0; layer < config_.layers && layout.rows_at[layer] > 0; ++layer) {
    RunLayer(layer, items, layout, numbers);
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

void CpuBlock::RunLayer(int64_t layer, std::span<const PassItem> items, const Layout& layout,
                        double* numbers) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t rows = layout.rows_at[layer];
  residual_ = residual_.narrow(0, 0, rows);
  at::Tensor normed = normed_.Rows(rows, config_.hidden_size);
  Normalize(weights.attention_norm, residual_, normed);
  const at::Tensor attended = Attention(layer, items, layout, normed);
  ReadSite(Read::Site::kHeads, layer, items, layout, attended, numbers);
  Multiply(weights.attention_output, attended, rows, PackedProduct::Into::kAdd, residual_);
  ReadSite(Read::Site::kPostAttention, layer, items, layout, residual_, numbers);
  if (!config_.parallel_block) Normalize(weights.mlp_norm, residual_, normed);

  const at::Tensor hidden = hidden_.Rows(rows, config_.intermediate_size);
  Multiply(weights.mlp_input, normed, rows, PackedProduct::Into::kSet, hidden);
  at::Tensor factor;
  if (config_.gated_mlp) {
    factor = factor_.Rows(rows, config_.intermediate_size);
    Multiply(weights.mlp_factor, normed, rows, PackedProduct::Into::kSet, factor);
  }
  Activate(hidden, factor);
  ReadSite(Read::Site::kNeurons, layer, items, layout, hidden, numbers);
  Multiply(weights.mlp_output, hidden, rows, PackedProduct::Into::kAdd, residual_);
  ReadSite(Read::Site::kResidual, layer + 1, items, layout, residual_, numbers);
}

void CpuBlock::ReadSite(Read::Site site, int64_t layer, std::span<const PassItem> items,
                        const Layout& layout, const at::Tensor& x, double* numbers) {
  const int64_t width = x.size(1);
  for (const Layout::RowRead& read : layout.reads) {
    if (read.read->site != site || read.read->layer != layer) continue;
    const PassItem& item = items[read.item];
    numbers[read.number] = read.read->kind == Read::Kind::kAttention
                               ? AttentionWeight(read, item, layout)
                               : ReadRow(*read.read, *item.target,
                                         x.const_data_ptr<float>() + read.row * width, width);
  }
}

at::Tensor CpuBlock::Attention(int64_t layer, std::span<const PassItem> items, const Layout& layout,
                               const at::Tensor& normed) {
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
  for (size_t i = 0; i < items.size(); ++i) {
    const PreparedBranch& parent = *items[i].parent;
    const int64_t parent_rows = parent.keys_values.size(2);
    const float* parent_keys =
        parent.keys_values.const_data_ptr<float>() + layer * 2 * parent_rows * kv_width;
    const Layout::Item& place = layout.items[i];
    spans_.push_back({.parent_keys = parent_keys,
                      .parent_values = parent_keys + parent_rows * kv_width,
                      .inherited = items[i].first - items[i].branch->start,
                      .row = place.row,
                      .count = place.count,
                      .tail_row = place.tail_row,
                      .tail_count = place.tail_row < rows ? place.tail_count : 0,
                      .behind_prefix = parent.prefix != nullptr});
  }
  const kernels::PartialAttention behind =
      prefix_.Run(layer, items, layout, query.const_data_ptr<float>(), product_);
  const at::Tensor attended = attended_.Rows(normed.size(0), config_.heads * config_.head_dim);
  kernels::Attend(spans_, behind, query.const_data_ptr<float>(), key.const_data_ptr<float>(),
                  value.const_data_ptr<float>(), config_.heads, config_.kv_heads, config_.head_dim,
                  attended.mutable_data_ptr<float>());
  return attended;
}

double CpuBlock::AttentionWeight(const Layout::RowRead& read, const PassItem& item,
                                 const Layout& layout) {
  const int64_t width = config_.head_dim;
  const int64_t stride = config_.kv_heads * width;
  const int64_t offset = read.read->which / (config_.heads / config_.kv_heads) * width;
  const Layout::Item& place = layout.items[read.item];
  const float* query = query_.data() + (read.row * config_.heads + read.read->which) * width;
  const auto key_at = [&](int64_t position) {
    const auto of = [&](const at::Tensor& keys_values, int64_t row) {
      return keys_values.const_data_ptr<float>() +
             read.read->layer * 2 * keys_values.size(2) * stride + row * stride + offset;
    };
    if (position < item.branch->start) return of(item.parent->prefix->keys_values, position);
    if (position < item.first) {
      return of(item.parent->keys_values, position - item.branch->start);
    }
    const int64_t own = position - item.first;
    const int64_t row = own < place.count ? place.row + own : place.tail_row + own - place.count;
    return static_cast<const float*>(key_.data() + row * stride + offset);
  };
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  std::vector<double> scores;
  double greatest = -std::numeric_limits<double>::infinity();
  for (int64_t position = 0; position <= layout.positions[read.row]; ++position) {
    scores.push_back(scale * kernels::DotWide(query, key_at(position), width));
    greatest = std::max(greatest, scores.back());
  }
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - greatest);
  return std::exp(scores[read.key] - greatest) / sum;
}

at::Tensor CpuBlock::HeadInput(const std::vector<int64_t>& rows, bool is_prefix) {
  const auto count = std::ssize(rows);
  const at::Tensor normed = normed_.Rows(count, config_.hidden_size);
  Normalize(weights_.final_norm,
            is_prefix ? residual_.narrow(0, 0, count)
                      : residual_.index_select(0, ToDevice(rows, weights_.device())),
            normed);
  return normed;
}

at::Tensor CpuBlock::Logits(const at::Tensor& normed, int64_t column, int64_t columns) {
  at::Tensor logits = logits_.Rows(normed.size(0), columns);
  Multiply({weights_.head.weight.narrow(0, column, columns), {}}, normed, normed.size(0),
           PackedProduct::Into::kSet, logits);
  if (weights_.head.bias.defined()) {
    logits.add_(wide_.Of(weights_.head.bias).narrow(0, column, columns));
  }
  return logits;
}

void CpuBlock::RunHead(const Layout& layout, double* numbers) {
  ReadSurprisals(layout, numbers);
  ReadLogits(layout, numbers);
}

void CpuBlock::ReadLogits(const Layout& layout, double* numbers) {
  std::vector<int64_t> rows;
  std::vector<const Layout::RowRead*> reads;
  for (const Layout::RowRead& read : layout.reads) {
    if (read.read->site != Read::Site::kHead) continue;
    rows.push_back(read.row);
    reads.push_back(&read);
  }
  if (reads.empty()) return;
  const at::Tensor normed = HeadInput(rows, /*is_prefix=*/false);
  bool others = false;
  for (size_t r = 0; r < reads.size(); ++r) {
    const int64_t token = reads[r]->read->which;
    if (reads[r]->read->kind == Read::Kind::kBestOther) {
      numbers[reads[r]->number] = -std::numeric_limits<double>::infinity();
      others = true;
      continue;
    }
    const at::Tensor weight = weights_.head.weight[token].to(at::kFloat).contiguous();
    numbers[reads[r]->number] = kernels::DotWide(
        normed.const_data_ptr<float>() + static_cast<int64_t>(r) * config_.hidden_size,
        weight.const_data_ptr<float>(), config_.hidden_size);
    if (weights_.head.bias.defined()) {
      numbers[reads[r]->number] +=
          double{wide_.Of(weights_.head.bias).const_data_ptr<float>()[token]};
    }
  }
  if (!others) return;
  for (int64_t column = 0; column < config_.vocab_size; column += HeadColumns()) {
    const int64_t columns = std::min(HeadColumns(), config_.vocab_size - column);
    const at::Tensor logits = Logits(normed, column, columns);
    const float* values = logits.const_data_ptr<float>();
    for (size_t r = 0; r < reads.size(); ++r, values += columns) {
      if (reads[r]->read->kind != Read::Kind::kBestOther) continue;
      double& best = numbers[reads[r]->number];
      for (int64_t i = 0; i < columns; ++i) {
        if (column + i != reads[r]->read->which) best = std::max(best, double{values[i]});
      }
    }
  }
}

// Tiles of logits are reduced to a maximum and a sum, which are merged in the tiles' order, and
// perhaps the label's logit.
void CpuBlock::ReadSurprisals(const Layout& layout, double* numbers) {
  const auto count = std::ssize(layout.head_rows);
  if (count == 0) return;
  const at::Tensor normed = HeadInput(layout.head_rows, layout.HeadIsPrefix());
  maxima_.assign(count, -std::numeric_limits<float>::infinity());
  sums_.assign(count, 0);
  label_logits_.resize(count);
  for (int64_t column = 0; column < config_.vocab_size; column += HeadColumns()) {
    const int64_t columns = std::min(HeadColumns(), config_.vocab_size - column);
    const at::Tensor logits = Logits(normed, column, columns);
    const float* values = logits.const_data_ptr<float>();
    kernels::AddToLogSumExp(values, count, columns, maxima_.data(), sums_.data());
    for (int64_t r = 0; r < count; ++r) {
      const int64_t label = layout.labels[r] - column;
      if (label >= 0 && label < columns) label_logits_[r] = values[r * columns + label];
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    numbers[layout.surprisal_numbers[r]] =
        maxima_[r] + std::log(double{sums_[r]}) - label_logits_[r];
  }
}

}  // namespace epo
