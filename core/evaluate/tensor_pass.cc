#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "core/evaluate/packed_pass.h"
#include "core/evaluate/phase_timer.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"

namespace epo {
namespace {

// Rows of the head at a time, and columns: the tile of logits stays small.
constexpr int64_t kHeadRows = 256;
constexpr int64_t kHeadColumns = 1024;

// A candidate's rows attend to its parent's keys before the change and to its own after it. Rows
// are spread into one padded batch of [candidates, length]; what a row must not see is after it and
// falls to the causal mask.
class CandidateAttention final : public RowAttention {
 public:
  CandidateAttention(const Model& model, std::span<const Candidate> candidates,
                     const Layout& layout)
      : config_(model.config()) {
    const c10::Device device = model.weights().device();
    std::map<const Prepared*, int64_t> index;
    std::vector<const PreparedPrompt*> parents;
    std::vector<int64_t> parent_of;
    for (const Candidate& candidate : candidates) {
      const auto [entry, is_new] =
          index.try_emplace(candidate.parent, static_cast<int64_t>(parents.size()));
      if (is_new) parents.push_back(static_cast<const PreparedPrompt*>(candidate.parent));
      parent_of.push_back(entry->second);
      length_ = std::max(length_,
                         candidate.first_changed + static_cast<int64_t>(candidate.tokens.size()));
    }
    for (const PreparedPrompt* parent : parents) {
      length_ = std::max(length_, static_cast<int64_t>(parent->ids.size()));
    }
    std::vector<at::Tensor> padded;
    for (const PreparedPrompt* parent : parents) {
      const int64_t missing = length_ - static_cast<int64_t>(parent->ids.size());
      padded.push_back(at::constant_pad_nd(parent->keys_values, {0, 0, 0, 0, 0, missing}));
    }
    parents_ = at::stack(padded);
    parent_of_ = ToDevice(parent_of, device);
    candidate_ = ToDevice(layout.candidate, device);
    position_ = ToDevice(layout.positions, device);
  }

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    const int64_t rows = query.size(0);
    const at::Tensor candidate = candidate_.narrow(0, 0, rows);
    const at::Tensor position = position_.narrow(0, 0, rows);
    const auto spread = [&](const at::Tensor& own, const at::Tensor& base) {
      at::Tensor all = base;
      all.index_put_({candidate, position}, own);
      return all.transpose(1, 2);
    };
    const at::Tensor keys =
        spread(key, parents_.select(1, layer).select(1, 0).index_select(0, parent_of_));
    const at::Tensor values =
        spread(value, parents_.select(1, layer).select(1, 1).index_select(0, parent_of_));
    const at::Tensor queries = spread(
        query,
        at::zeros({parent_of_.size(0), length_, config_.heads, config_.head_dim}, query.options()));
    const at::Tensor attended =
        at::scaled_dot_product_attention(queries, keys, values, /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                         /*is_causal=*/true, /*scale=*/{},
                                         /*enable_gqa=*/config_.kv_heads != config_.heads)
            .transpose(1, 2);
    return attended.index({candidate, position}).reshape({rows, config_.heads * config_.head_dim});
  }

 private:
  const ModelConfig& config_;
  int64_t length_ = 0;
  // [parents, layers, 2, length, kv_heads, head_dim].
  at::Tensor parents_;
  at::Tensor parent_of_;
  at::Tensor candidate_;
  at::Tensor position_;
};

// -log p(label) of each row. Logits exist one tile at a time.
at::Tensor Surprisal(const Model& model, const at::Tensor& normed, const at::Tensor& labels) {
  const LinearWeights& head = model.weights().head;
  const c10::ScalarType wide = AccumulationType(model.weights().dtype());
  const int64_t vocab = head.weight.size(0);
  std::vector<at::Tensor> parts;
  for (int64_t row = 0; row < normed.size(0); row += kHeadRows) {
    const int64_t rows = std::min(kHeadRows, normed.size(0) - row);
    const at::Tensor x = normed.narrow(0, row, rows);
    const at::Tensor label = labels.narrow(0, row, rows);
    std::vector<at::Tensor> partial;
    for (int64_t column = 0; column < vocab; column += kHeadColumns) {
      const int64_t columns = std::min(kHeadColumns, vocab - column);
      at::Tensor logits = at::matmul(x, head.weight.narrow(0, column, columns).t());
      if (head.bias.defined()) logits.add_(head.bias.narrow(0, column, columns));
      partial.push_back(at::logsumexp(logits.to(wide), {1}));
    }
    const at::Tensor total = at::logsumexp(at::stack(partial, 1), {1});
    at::Tensor own = (x.to(wide) * head.weight.index_select(0, label).to(wide)).sum(1);
    if (head.bias.defined()) own = own + head.bias.index_select(0, label).to(wide);
    parts.push_back(total - own);
  }
  return at::cat(parts);
}

std::vector<double> ToVector(const at::Tensor& values) {
  const at::Tensor host = values.to(at::kCPU, at::kDouble).contiguous();
  return std::vector<double>(host.const_data_ptr<double>(),
                             host.const_data_ptr<double>() + host.numel());
}

std::vector<double> ChangeSurprisal(std::span<const Candidate> candidates) {
  std::vector<at::Tensor> log_probs;
  for (const Candidate& candidate : candidates) {
    if (candidate.first_changed == 0) continue;
    const auto* parent = static_cast<const PreparedPrompt*>(candidate.parent);
    log_probs.push_back(
        parent->log_probs.select(0, candidate.first_changed - 1).select(0, candidate.tokens[0]));
  }
  std::vector<double> nats(candidates.size(), 0.0);
  if (log_probs.empty()) return nats;
  const std::vector<double> known = ToVector(at::stack(log_probs));
  size_t next = 0;
  for (size_t c = 0; c < candidates.size(); ++c) {
    if (candidates[c].first_changed > 0) nats[c] = -known[next++];
  }
  return nats;
}

class TensorPass final : public PackedPass {
 public:
  explicit TensorPass(const Model& model) : model_(model) {}

  PassResult Run(std::span<const Candidate> candidates, const Layout& layout,
                 EvaluatorCounters& counters) override {
    const at::AutoGradMode no_grad(false);
    const ModelConfig& config = model_.config();
    const c10::Device device = model_.weights().device();
    const Decoder decoder(model_);
    PassResult result;
    result.change_surprisal = ChangeSurprisal(candidates);
    at::Tensor residual;
    {
      const PhaseTimer timer(counters.layer_seconds);
      CandidateAttention attention(model_, candidates, layout);
      Rotary rotary = decoder.RotaryAt(ToDevice(layout.positions, device));
      residual = decoder.Embed(ToDevice(layout.ids, device));
      std::vector<at::Tensor> targets(candidates.size());
      for (int64_t layer = 0; layer < config.layers; ++layer) {
        const int64_t rows = layout.rows_at[layer];
        if (rows == 0) break;
        if (rows < residual.size(0)) {
          residual = residual.narrow(0, 0, rows);
          rotary = rotary.Narrow(rows);
        }
        at::Tensor neurons;
        residual = decoder.Layer(layer, residual, rotary, attention, &neurons);
        for (size_t c = 0; c < candidates.size(); ++c) {
          const Objective& objective = candidates[c].parent->objective();
          if (objective.layer != layer) continue;
          targets[c] = neurons.select(0, layout.last_row[c]).select(0, objective.neuron);
        }
      }
      result.targets = ToVector(at::stack(targets));
    }
    const PhaseTimer timer(counters.head_seconds);
    if (layout.predicting > 0) {
      const at::Tensor normed = decoder.FinalNorm(residual.narrow(0, 0, layout.predicting));
      result.surprisal = ToVector(Surprisal(model_, normed, ToDevice(layout.labels, device)));
    }
    return result;
  }

 private:
  const Model& model_;
};

}  // namespace

std::unique_ptr<PackedPass> MakeTensorPass(const Model& model) {
  return std::make_unique<TensorPass>(model);
}

}  // namespace epo
