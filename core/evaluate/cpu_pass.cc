#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <cmath>

#include "core/evaluate/kernels.h"
#include "core/evaluate/packed_pass.h"
#include "core/evaluate/phase_timer.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/wide_weights.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Matrix products see a multiple of this many rows. MKL's float32 product then gives each row the
// same sums whatever else is in the batch: it has other kernels for a few rows, and the same order
// of additions for 12 and more.
constexpr int64_t kRowTile = 16;

// Logits are made in tiles of this many vocabulary columns, one thread a tile, and reduced while
// they are in its cache.
constexpr int64_t kHeadColumns = 512;
constexpr int64_t kHeadRows = 128;

int64_t RoundUp(int64_t rows) { return (rows + kRowTile - 1) / kRowTile * kRowTile; }

// A row-major float32 matrix that grows and is never given back: after the first steps no pass
// allocates.
class Buffer {
 public:
  // [rows, width], contents undefined.
  at::Tensor Rows(int64_t rows, int64_t width) {
    if (!storage_.defined() || storage_.numel() < rows * width) {
      storage_ = at::empty({rows * width}, at::kFloat);
    }
    return storage_.narrow(0, 0, rows * width).view({rows, width});
  }

 private:
  at::Tensor storage_;
};

class CpuPass final : public PackedPass {
 public:
  CpuPass(const Model& model, bool native_bfloat16)
      : config_(model.config()),
        weights_(model.weights()),
        wide_(model.weights()),
        native_(native_bfloat16 && weights_.dtype() == at::kBFloat16) {}

  PassResult Run(std::span<const Candidate> candidates, const Layout& layout,
                 EvaluatorCounters& counters) override {
    const at::AutoGradMode no_grad(false);
    PassResult result;
    for (const Candidate& candidate : candidates) {
      const auto* parent = static_cast<const PreparedPrompt*>(candidate.parent);
      const int64_t before = candidate.first_changed - 1;
      result.change_surprisal.push_back(
          before < 0
              ? 0.0
              : -parent->log_probs
                     .const_data_ptr<float>()[before * config_.vocab_size + candidate.tokens[0]]);
    }
    result.targets.resize(candidates.size());
    {
      const PhaseTimer timer(counters.layer_seconds);
      Embed(layout);
      for (int64_t layer = 0; layer < config_.layers && layout.rows_at[layer] > 0; ++layer) {
        RunLayer(layer, candidates, layout, result.targets);
      }
    }
    const PhaseTimer timer(counters.head_seconds);
    if (layout.predicting > 0) result.surprisal = Surprisal(layout);
    return result;
  }

 private:
  void Embed(const Layout& layout) {
    const auto rows = static_cast<int64_t>(layout.ids.size());
    residual_ = residual_buffer_.Rows(RoundUp(rows), config_.hidden_size);
    residual_.narrow(0, rows, residual_.size(0) - rows).zero_();
    float* out = residual_.mutable_data_ptr<float>();
    for (int64_t r = 0; r < rows; ++r) {
      wide_.Row(weights_.embedding, layout.ids[r], out + r * config_.hidden_size);
    }
  }

  void Normalize(const NormWeights& norm, const at::Tensor& x, const at::Tensor& out) {
    const auto epsilon = static_cast<float>(config_.norm_epsilon);
    const at::Tensor& weight = wide_.Vector(norm.weight);
    if (config_.norm == Norm::kLayerNorm) {
      kernels::LayerNorm(x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                         wide_.Vector(norm.bias).const_data_ptr<float>(), epsilon, x.size(0),
                         x.size(1), out.mutable_data_ptr<float>());
    } else {
      kernels::RmsNorm(x.const_data_ptr<float>(), weight.const_data_ptr<float>(), epsilon,
                       x.size(0), x.size(1), out.mutable_data_ptr<float>());
    }
  }

  // `out` = x W^T + b.
  void Multiply(const LinearWeights& linear, const at::Tensor& x, at::Tensor out) {
    if (native_) {
      out.copy_(at::linear(x.to(at::kBFloat16), linear.weight, linear.bias));
      return;
    }
    const at::Tensor weight = wide_.Matrix(linear.weight);
    if (linear.bias.defined()) {
      at::addmm_out(out, wide_.Vector(linear.bias), x, weight.t());
    } else {
      at::mm_out(out, x, weight.t());
    }
  }

  // `residual` += x W^T + b.
  void AddProduct(const LinearWeights& linear, const at::Tensor& x, at::Tensor residual) {
    if (native_) {
      residual.add_(at::linear(x.to(at::kBFloat16), linear.weight, linear.bias));
      return;
    }
    residual.addmm_(x, wide_.Matrix(linear.weight).t());
    if (linear.bias.defined()) residual.add_(wide_.Vector(linear.bias));
  }

  void Activate(at::Tensor hidden, const at::Tensor& factor) {
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

  void RunLayer(int64_t layer, std::span<const Candidate> candidates, const Layout& layout,
                std::vector<double>& targets) {
    const LayerWeights& weights = weights_.layers[layer];
    const int64_t rows = layout.rows_at[layer];
    const int64_t padded = RoundUp(rows);
    residual_ = residual_.narrow(0, 0, padded);
    at::Tensor normed = normed_.Rows(padded, config_.hidden_size);
    Normalize(weights.attention_norm, residual_, normed);
    const at::Tensor attended = Attention(layer, candidates, layout, normed);
    AddProduct(weights.attention_output, attended, residual_);
    if (!config_.parallel_block) Normalize(weights.mlp_norm, residual_, normed);

    const at::Tensor hidden = hidden_.Rows(padded, config_.intermediate_size);
    Multiply(weights.mlp_input, normed, hidden);
    at::Tensor factor;
    if (config_.gated_mlp) {
      factor = factor_.Rows(padded, config_.intermediate_size);
      Multiply(weights.mlp_factor, normed, factor);
    }
    Activate(hidden, factor);
    for (size_t c = 0; c < candidates.size(); ++c) {
      const Objective& objective = candidates[c].parent->objective();
      if (objective.layer != layer) continue;
      targets[c] = hidden.const_data_ptr<float>()[layout.last_row[c] * config_.intermediate_size +
                                                  objective.neuron];
    }
    AddProduct(weights.mlp_output, hidden, residual_);
  }

  at::Tensor Attention(int64_t layer, std::span<const Candidate> candidates, const Layout& layout,
                       const at::Tensor& normed) {
    const LayerWeights& weights = weights_.layers[layer];
    const int64_t rows = layout.rows_at[layer];
    const int64_t kv_width = config_.kv_heads * config_.head_dim;
    const at::Tensor query = query_.Rows(normed.size(0), config_.heads * config_.head_dim);
    const at::Tensor key = key_.Rows(normed.size(0), kv_width);
    const at::Tensor value = value_.Rows(normed.size(0), kv_width);
    Multiply(weights.query, normed, query);
    Multiply(weights.key, normed, key);
    Multiply(weights.value, normed, value);
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
    attended.narrow(0, rows, attended.size(0) - rows).zero_();
    kernels::Attend(spans_, query.const_data_ptr<float>(), key.const_data_ptr<float>(),
                    value.const_data_ptr<float>(), config_.heads, config_.kv_heads,
                    config_.head_dim, attended.mutable_data_ptr<float>());
    return attended;
  }

  // Tiles of logits are reduced to a maximum, a sum and perhaps the label's logit, then merged in
  // the tiles' order.
  std::vector<double> Surprisal(const Layout& layout) {
    const int64_t rows = RoundUp(layout.predicting);
    const int64_t vocab = config_.vocab_size;
    const int64_t tiles = (vocab + kHeadColumns - 1) / kHeadColumns;
    at::Tensor normed = normed_.Rows(rows, config_.hidden_size);
    Normalize(weights_.final_norm, residual_.narrow(0, 0, rows), normed);
    std::vector<float> maxima(tiles * rows), sums(tiles * rows), label_logits(rows);
    at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
      const at::AutoGradMode no_grad(false);
      Buffer logits_buffer, weight_buffer;
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t column = tile * kHeadColumns;
        const int64_t columns = std::min(kHeadColumns, vocab - column);
        LinearWeights head;
        head.weight =
            native_ ? weights_.head.weight.narrow(0, column, columns)
                    : wide_.Part(weights_.head.weight, column, columns,
                                 [&](int64_t r, int64_t w) { return weight_buffer.Rows(r, w); });
        if (weights_.head.bias.defined()) {
          head.bias = wide_.Vector(weights_.head.bias).narrow(0, column, columns);
        }
        for (int64_t row = 0; row < rows; row += kHeadRows) {
          const int64_t some = std::min(kHeadRows, rows - row);
          at::Tensor logits = logits_buffer.Rows(some, columns);
          const at::Tensor x = normed.narrow(0, row, some);
          if (native_) {
            logits.copy_(at::mm(x.to(at::kBFloat16), head.weight.t()));
            if (head.bias.defined()) logits.add_(head.bias);
          } else if (head.bias.defined()) {
            at::addmm_out(logits, head.bias, x, head.weight.t());
          } else {
            at::mm_out(logits, x, head.weight.t());
          }
          const auto* values = logits.const_data_ptr<float>();
          kernels::MaxAndExpSum(values, some, columns, maxima.data() + tile * rows + row,
                                sums.data() + tile * rows + row);
          for (int64_t r = row; r < std::min(row + some, layout.predicting); ++r) {
            const int64_t label = layout.labels[r] - column;
            if (label >= 0 && label < columns) {
              label_logits[r] = values[(r - row) * columns + label];
            }
          }
        }
      }
    });
    std::vector<double> surprisal(layout.predicting);
    for (int64_t r = 0; r < layout.predicting; ++r) {
      float greatest = maxima[r];
      for (int64_t tile = 1; tile < tiles; ++tile) {
        greatest = std::max(greatest, maxima[tile * rows + r]);
      }
      double total = 0;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        total += sums[tile * rows + r] * std::exp(double{maxima[tile * rows + r]} - greatest);
      }
      surprisal[r] = greatest + std::log(total) - label_logits[r];
    }
    return surprisal;
  }

  const ModelConfig& config_;
  const Weights& weights_;
  WideWeights wide_;
  const bool native_;
  Buffer residual_buffer_, normed_, query_, key_, value_, attended_, hidden_, factor_;
  at::Tensor residual_;
  std::vector<kernels::AttentionSpan> spans_;
};

}  // namespace

std::unique_ptr<PackedPass> MakeCpuPass(const Model& model, bool native_bfloat16) {
  return std::make_unique<CpuPass>(model, native_bfloat16);
}

}  // namespace epo
