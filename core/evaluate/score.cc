#include "core/evaluate/score.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"

namespace epo {
namespace {

// Rows of the head at a time, and columns: the tile of logits stays in cache.
constexpr int64_t kHeadRows = 256;
constexpr int64_t kHeadColumns = 1024;

// One pass's rows. Those that predict a token come first; then each candidate's last row, which
// only its target needs, the deepest target first, so that dropping rows that are no longer needed
// is taking a prefix.
struct Layout {
  std::vector<int64_t> ids, positions, candidate;
  // For the rows that predict: the token that comes next.
  std::vector<int64_t> labels;
  // Each candidate's last row.
  std::vector<int64_t> last_row;
  int64_t predicting = 0;
  // Rows that layer i computes, at [i].
  std::vector<int64_t> rows_at;
};

Layout LayOut(const ModelConfig& config, std::span<const Candidate> candidates) {
  Layout layout;
  for (size_t c = 0; c < candidates.size(); ++c) {
    const Candidate& candidate = candidates[c];
    for (size_t j = 0; j + 1 < candidate.tokens.size(); ++j) {
      layout.ids.push_back(candidate.tokens[j]);
      layout.positions.push_back(candidate.first_changed + static_cast<int64_t>(j));
      layout.candidate.push_back(static_cast<int64_t>(c));
      layout.labels.push_back(candidate.tokens[j + 1]);
    }
  }
  layout.predicting = static_cast<int64_t>(layout.ids.size());

  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto depth = [&](size_t c) { return candidates[c].parent->objective().layer; };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return depth(a) > depth(b); });
  layout.last_row.resize(candidates.size());
  for (const size_t c : order) {
    layout.last_row[c] = static_cast<int64_t>(layout.ids.size());
    layout.ids.push_back(candidates[c].tokens.back());
    layout.positions.push_back(candidates[c].first_changed +
                               static_cast<int64_t>(candidates[c].tokens.size()) - 1);
    layout.candidate.push_back(static_cast<int64_t>(c));
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const auto needed = std::partition_point(order.begin(), order.end(),
                                             [&](size_t c) { return depth(c) >= layer; });
    layout.rows_at.push_back(layout.predicting + (needed - order.begin()));
  }
  return layout;
}

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

// -log p(label) of each row, float64 on the host. Logits exist one tile at a time.
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
  return at::cat(parts).to(at::kCPU, at::kDouble).contiguous();
}

// The parent's -log p(first changed token | what comes before), which no computed row predicts.
std::vector<double> SurprisalAtChange(std::span<const Candidate> candidates) {
  std::vector<double> nats(candidates.size(), 0.0);
  for (size_t c = 0; c < candidates.size(); ++c) {
    const Candidate& candidate = candidates[c];
    if (candidate.first_changed == 0) continue;
    const auto* parent = static_cast<const PreparedPrompt*>(candidate.parent);
    nats[c] = -parent->log_probs[candidate.first_changed - 1][candidate.tokens[0]].item<double>();
  }
  return nats;
}

}  // namespace

std::vector<Score> ScorePass(const Model& model, std::span<const Candidate> candidates,
                             EvaluatorCounters& counters) {
  const at::AutoGradMode no_grad(false);
  const ModelConfig& config = model.config();
  const c10::Device device = model.weights().device();
  const Decoder decoder(model);
  const Layout layout = LayOut(config, candidates);

  CandidateAttention attention(model, candidates, layout);
  Rotary rotary = decoder.RotaryAt(ToDevice(layout.positions, device));
  at::Tensor residual = decoder.Embed(ToDevice(layout.ids, device));
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
  const at::Tensor host_targets = at::stack(targets).to(at::kCPU, at::kDouble);

  at::Tensor surprisal;
  if (layout.predicting > 0) {
    surprisal = Surprisal(model, decoder.FinalNorm(residual.narrow(0, 0, layout.predicting)),
                          ToDevice(layout.labels, device));
  }

  std::vector<double> totals = SurprisalAtChange(candidates);
  for (size_t c = 0; c < candidates.size(); ++c) {
    const auto* parent = static_cast<const PreparedPrompt*>(candidates[c].parent);
    for (int i = 0; i + 1 < candidates[c].first_changed; ++i) totals[c] += parent->surprisal[i];
  }
  for (int64_t row = 0; row < layout.predicting; ++row) {
    totals[layout.candidate[row]] += surprisal.data_ptr<double>()[row];
  }
  std::vector<Score> scores(candidates.size());
  for (size_t c = 0; c < candidates.size(); ++c) {
    const auto length =
        candidates[c].first_changed + static_cast<int64_t>(candidates[c].tokens.size());
    scores[c].target = static_cast<float>(host_targets.data_ptr<double>()[c]);
    scores[c].cross_entropy =
        static_cast<float>(length > 1 ? totals[c] / static_cast<double>(length - 1)
                                      : std::numeric_limits<double>::quiet_NaN());
    counters.exhaustive_rows += length;
  }
  counters.candidates += static_cast<int64_t>(candidates.size());
  counters.rows += static_cast<int64_t>(layout.ids.size());
  counters.head_rows += layout.predicting;
  return scores;
}

}  // namespace epo
