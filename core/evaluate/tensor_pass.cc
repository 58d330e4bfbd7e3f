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

// Rows of the head at a time, and columns. On a CPU the tile of logits stays in a cache; on a GPU
// it is large enough to fill the device and small enough never to matter in its memory.
struct HeadTile {
  int64_t rows;
  int64_t columns;
};
HeadTile TileOn(const c10::Device& device) {
  return device.is_cpu() ? HeadTile{256, 1024} : HeadTile{4096, 8192};
}

// On a GPU, sizes are rounded up to these, so that steps repeat a few shapes: kernels are chosen
// and memory is laid out once for each, and a captured graph fits many steps.
constexpr PassBuckets kGpuBuckets{.rows = 256, .candidates = 64, .parents = 8};

// `layout` with rows rounded up: at each layer some that are no longer needed stay, and at the end
// stand rows of a candidate that nobody asked for, `candidates`.
Layout Pad(Layout layout, int64_t candidates, const PassBuckets& buckets) {
  const int64_t rows = RoundUp(std::ssize(layout.ids), buckets.rows);
  layout.ids.resize(rows, 0);
  layout.positions.resize(rows, 0);
  layout.candidate.resize(rows, candidates);
  for (int64_t& needed : layout.rows_at) needed = RoundUp(needed, buckets.rows);
  layout.labels.resize(RoundUp(layout.predicting, buckets.rows), 0);
  return layout;
}

// A candidate's rows attend to its parent's keys before the change and to its own after it. Rows
// are spread into one padded batch of [candidates, length]; what a row must not see is after it and
// falls to the causal mask.
class CandidateAttention final : public RowAttention {
 public:
  // `layout` may have rows of one more candidate.
  CandidateAttention(const Model& model, std::span<const Candidate> candidates,
                     const Layout& layout, const PassBuckets& buckets)
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
    padded.resize(RoundUp(std::ssize(padded), buckets.parents), padded[0]);
    parents_ = at::stack(padded);
    const int64_t spare =
        std::ssize(layout.ids) > 0 && layout.candidate.back() == std::ssize(candidates);
    parent_of.resize(RoundUp(std::ssize(candidates) + spare, buckets.candidates), 0);
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
  const HeadTile tile = TileOn(normed.device());
  std::vector<at::Tensor> parts;
  for (int64_t row = 0; row < normed.size(0); row += tile.rows) {
    const int64_t rows = std::min(tile.rows, normed.size(0) - row);
    const at::Tensor x = normed.narrow(0, row, rows);
    const at::Tensor label = labels.narrow(0, row, rows);
    std::vector<at::Tensor> partial;
    for (int64_t column = 0; column < vocab; column += tile.columns) {
      const int64_t columns = std::min(tile.columns, vocab - column);
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

// Values on the device that the host wants, and where each goes. They come back in one transfer:
// nothing that the device computes in a pass is waited for before that.
class Results {
 public:
  // `values` is one-dimensional; its i-th goes to *to[i].
  void Want(const at::Tensor& values, const std::vector<double*>& to) {
    values_.push_back(values);
    to_.insert(to_.end(), to.begin(), to.end());
  }

  void Fetch() {
    if (values_.empty()) return;
    const at::Tensor host = at::cat(values_).to(at::kCPU, at::kDouble).contiguous();
    for (size_t i = 0; i < to_.size(); ++i) *to_[i] = host.const_data_ptr<double>()[i];
  }

 private:
  std::vector<at::Tensor> values_;
  std::vector<double*> to_;
};

// Elements of a matrix, and where each goes.
struct Picks {
  std::vector<int64_t> rows;
  std::vector<int64_t> columns;
  std::vector<double*> to;

  void Add(int64_t row, int64_t column, double* where) {
    rows.push_back(row);
    columns.push_back(column);
    to.push_back(where);
  }
  at::Tensor Of(const at::Tensor& matrix) const {
    return matrix.index({ToDevice(rows, matrix.device()), ToDevice(columns, matrix.device())});
  }
};

class TensorPass final : public PackedPass {
 public:
  TensorPass(const Model& model, const PassBuckets& buckets) : model_(model), buckets_(buckets) {}

  PassResult Run(std::span<const Candidate> candidates, const Layout& needed,
                 EvaluatorCounters& counters) override {
    const at::AutoGradMode no_grad(false);
    const ModelConfig& config = model_.config();
    const c10::Device device = model_.weights().device();
    const Decoder decoder(model_);
    const c10::ScalarType wide = AccumulationType(model_.weights().dtype());
    PassResult result;
    result.targets.resize(candidates.size());
    result.change_surprisal.resize(candidates.size());
    result.surprisal.resize(needed.predicting);
    Results results;
    const Layout layout = Pad(needed, std::ssize(candidates), buckets_);

    std::map<const PreparedPrompt*, Picks> changes;
    std::map<int64_t, Picks> targets;
    for (size_t c = 0; c < candidates.size(); ++c) {
      const auto* parent = static_cast<const PreparedPrompt*>(candidates[c].parent);
      targets[parent->goal.layer].Add(layout.last_row[c], parent->goal.neuron, &result.targets[c]);
      if (candidates[c].first_changed == 0) continue;
      changes[parent].Add(candidates[c].first_changed - 1, candidates[c].tokens[0],
                          &result.change_surprisal[c]);
    }
    for (const auto& [parent, picks] : changes) {
      results.Want(picks.Of(parent->log_probs).neg(), picks.to);
    }
    at::Tensor residual;
    {
      const PhaseTimer timer(counters.layer_seconds);
      CandidateAttention attention(model_, candidates, layout, buckets_);
      Rotary rotary = decoder.RotaryAt(ToDevice(layout.positions, device));
      residual = decoder.Embed(ToDevice(layout.ids, device));
      for (int64_t layer = 0; layer < config.layers; ++layer) {
        const int64_t rows = layout.rows_at[layer];
        if (rows == 0) break;
        if (rows < residual.size(0)) {
          residual = residual.narrow(0, 0, rows);
          rotary = rotary.Narrow(rows);
        }
        at::Tensor neurons;
        residual = decoder.Layer(layer, residual, rotary, attention, &neurons);
        const auto wanted = targets.find(layer);
        if (wanted == targets.end()) continue;
        results.Want(wanted->second.Of(neurons).to(wide), wanted->second.to);
      }
    }
    const PhaseTimer timer(counters.head_seconds);
    if (layout.predicting > 0) {
      const at::Tensor normed = decoder.FinalNorm(residual.narrow(0, 0, std::ssize(layout.labels)));
      std::vector<double*> to;
      for (double& nats : result.surprisal) to.push_back(&nats);
      results.Want(Surprisal(model_, normed, ToDevice(layout.labels, device))
                       .narrow(0, 0, layout.predicting),
                   to);
    }
    results.Fetch();
    return result;
  }

 private:
  const Model& model_;
  const PassBuckets buckets_;
};

}  // namespace

std::unique_ptr<PackedPass> MakeTensorPass(const Model& model) {
  return MakeTensorPass(model, model.weights().device().is_cpu() ? PassBuckets{} : kGpuBuckets);
}

std::unique_ptr<PackedPass> MakeTensorPass(const Model& model, const PassBuckets& buckets) {
  return std::make_unique<TensorPass>(model, buckets);
}

}  // namespace epo
