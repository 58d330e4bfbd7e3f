#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "core/evaluate/packed_pass.h"
#include "core/evaluate/phase_timer.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/recorded.h"
#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"
#include "core/model/gpu_kernels.h"
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

// Everything that shapes a pass. Its sizes are rounded up to buckets: at each layer some rows that
// are no longer needed stay, and at the end stand rows of a candidate that nobody asked for.
struct Shape {
  int64_t rows = 0;
  int64_t predicting = 0;
  // The longest prompt.
  int64_t length = 0;
  // At [i]: how many rows layer i computes.
  std::vector<int64_t> rows_at;
  // How many targets are read from a layer, for each that has any.
  std::map<int64_t, int64_t> targets;

  std::vector<int64_t> Key() const {
    std::vector<int64_t> key = {rows, predicting, length};
    key.insert(key.end(), rows_at.begin(), rows_at.end());
    for (const auto& [layer, count] : targets) key.insert(key.end(), {layer, count});
    return key;
  }
};

// One pass's numbers that differ from pass to pass of one shape; one tensor, so that they go to the
// device together.
struct Inputs {
  std::vector<int64_t> ids, positions, candidate;
  // Of each row, as AttendedRows'.
  std::vector<int64_t> parent, first, base;
  std::vector<int64_t> labels;
  // Of each candidate: its parent's place among the parents.
  std::vector<int64_t> parent_of;
  // In the order of Shape::targets.
  std::vector<int64_t> target_rows, target_neurons;

  at::Tensor On(c10::Device device) const {
    std::vector<int64_t> all;
    for (const auto* part : {&ids, &positions, &candidate, &parent, &first, &base, &labels,
                             &parent_of, &target_rows, &target_neurons}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    return ToDevice(all, device);
  }
};

// Inputs, apart again on the device.
struct DeviceInputs {
  DeviceInputs(const at::Tensor& all, const Shape& shape) {
    int64_t count = 0;
    for (const auto& [layer, some] : shape.targets) count += some;
    const int64_t rows = shape.rows;
    const int64_t candidates = all.size(0) - 6 * rows - shape.predicting - 2 * count;
    const auto parts = all.split_with_sizes(
        {rows, rows, rows, rows, rows, rows, shape.predicting, candidates, count, count});
    ids = parts[0];
    positions = parts[1];
    candidate = parts[2];
    attended = {parts[3], parts[4], parts[5], parts[1]};
    labels = parts[6];
    parent_of = parts[7];
    target_rows = parts[8];
    target_neurons = parts[9];
  }

  at::Tensor ids, positions, candidate, labels, parent_of, target_rows, target_neurons;
  AttendedRows attended;
};

// A candidate's rows attend to its parent's keys before the change and to its own after it.
class CandidateAttention final : public RowAttention {
 public:
  // `parents` [parents, layers, 2, length, kv_heads, head_dim].
  CandidateAttention(const ModelConfig& config, GpuKernels* kernels, at::Tensor parents,
                     const DeviceInputs& inputs)
      : config_(config), kernels_(kernels), parents_(std::move(parents)), inputs_(inputs) {}

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    const at::Tensor keys_values = parents_.select(1, layer);
    const at::Tensor parent_key = keys_values.select(1, 0);
    const at::Tensor parent_value = keys_values.select(1, 1);
    if (kernels_ != nullptr) {
      return kernels_->Attend(query, key, value, parent_key, parent_value, inputs_.attended);
    }
    // Rows are spread into one padded batch of [candidates, length]; what a row must not see is
    // after it and falls to the causal mask.
    const int64_t rows = query.size(0);
    const at::Tensor candidate = inputs_.candidate.narrow(0, 0, rows);
    const at::Tensor position = inputs_.positions.narrow(0, 0, rows);
    const auto spread = [&](const at::Tensor& own, const at::Tensor& base) {
      at::Tensor all = base;
      all.index_put_({candidate, position}, own);
      return all.transpose(1, 2);
    };
    const at::Tensor& parent_of = inputs_.parent_of;
    const at::Tensor keys = spread(key, parent_key.index_select(0, parent_of));
    const at::Tensor values = spread(value, parent_value.index_select(0, parent_of));
    const at::Tensor queries = spread(
        query, at::zeros({parent_of.size(0), parents_.size(3), config_.heads, config_.head_dim},
                         query.options()));
    const at::Tensor attended =
        at::scaled_dot_product_attention(queries, keys, values, /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                         /*is_causal=*/true, /*scale=*/{},
                                         /*enable_gqa=*/config_.kv_heads != config_.heads)
            .transpose(1, 2);
    return attended.index({candidate, position}).reshape({rows, config_.heads * config_.head_dim});
  }

 private:
  const ModelConfig& config_;
  GpuKernels* const kernels_;
  const at::Tensor parents_;
  const DeviceInputs& inputs_;
};

// The log-sum-exp of each row, into `out`.
void LogSumExp(GpuKernels* kernels, const at::Tensor& logits, at::Tensor out) {
  if (kernels != nullptr) {
    kernels->LogSumExp(logits, out);
  } else {
    out.copy_(at::logsumexp(logits.to(out.scalar_type()), {1}));
  }
}

// -log p(label) of each row. Logits exist one tile at a time.
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

// `inputs` are Inputs' and the parents' keys and values. Gives the targets, in the order of
// Shape::targets, and the surprisal of the rows that predict, one after another.
std::vector<at::Tensor> Forward(const Model& model, GpuKernels* kernels, const Shape& shape,
                                const std::vector<at::Tensor>& inputs,
                                EvaluatorCounters& counters) {
  const at::AutoGradMode no_grad(false);
  const c10::ScalarType wide = AccumulationType(model.weights().dtype());
  const DeviceInputs parts(inputs[0], shape);
  const Decoder decoder(model, kernels);
  std::vector<at::Tensor> results;
  at::Tensor residual;
  {
    const PhaseTimer timer(counters.layer_seconds);
    CandidateAttention attention(model.config(), kernels, inputs[1], parts);
    Rotary rotary = decoder.RotaryAt(parts.positions);
    residual = decoder.Embed(parts.ids);
    int64_t first = 0;
    for (int64_t layer = 0; layer < model.config().layers; ++layer) {
      const int64_t rows = shape.rows_at[layer];
      if (rows == 0) break;
      if (rows < residual.size(0)) {
        residual = residual.narrow(0, 0, rows);
        rotary = rotary.Narrow(rows);
      }
      at::Tensor neurons;
      residual = decoder.Layer(layer, residual, rotary, attention, &neurons);
      const auto found = shape.targets.find(layer);
      if (found == shape.targets.end()) continue;
      results.push_back(neurons
                            .index({parts.target_rows.narrow(0, first, found->second),
                                    parts.target_neurons.narrow(0, first, found->second)})
                            .to(wide));
      first += found->second;
    }
  }
  const PhaseTimer timer(counters.head_seconds);
  if (shape.predicting > 0) {
    const at::Tensor normed = decoder.FinalNorm(residual.narrow(0, 0, shape.predicting));
    results.push_back(Surprisal(model, kernels, normed, parts.labels));
  }
  return {at::cat(results)};
}

class TensorPass final : public PackedPass {
 public:
  TensorPass(const Model& model, const GpuHelp& help, const PassBuckets& buckets)
      : model_(model), kernels_(help.kernels), recorded_(help.recorder), buckets_(buckets) {}

  PassResult Run(std::span<const Candidate> candidates, const Layout& layout,
                 EvaluatorCounters& counters) override {
    const at::AutoGradMode no_grad(false);
    Shape shape;
    Inputs inputs;
    FillRows(candidates, layout, shape, inputs);
    const std::vector<size_t> target_of = FillTargets(candidates, layout, shape, inputs);
    const at::Tensor parents = StackParents(candidates, layout, shape, inputs);
    std::vector<size_t> change_of;
    const at::Tensor changes = Changes(candidates, change_of);
    const auto results = recorded_.Call(
        shape.Key(), {inputs.On(device()), parents},
        [&model = model_, kernels = kernels_, shape, &counters](const auto& tensors) {
          return Forward(model, kernels, shape, tensors, counters);
        });

    // Waits for the device, for the first time.
    const PhaseTimer timer(counters.head_seconds);
    const at::Tensor host = at::cat({results[0], changes}).to(at::kCPU, at::kDouble).contiguous();
    const double* values = host.const_data_ptr<double>();
    PassResult result;
    for (const size_t place : target_of) result.targets.push_back(values[place]);
    const double* surprisal = values + inputs.target_rows.size();
    result.surprisal.assign(surprisal, surprisal + layout.predicting);
    result.change_surprisal.resize(candidates.size());
    const double* change = values + results[0].size(0);
    for (size_t i = 0; i < change_of.size(); ++i) result.change_surprisal[change_of[i]] = change[i];
    return result;
  }

 private:
  c10::Device device() const { return model_.weights().device(); }

  void FillRows(std::span<const Candidate> candidates, const Layout& layout, Shape& shape,
                Inputs& inputs) const {
    inputs.ids = layout.ids;
    inputs.positions = layout.positions;
    inputs.candidate = layout.candidate;
    inputs.labels = layout.labels;
    shape.rows = RoundUp(std::ssize(layout.ids), buckets_.rows);
    shape.predicting = RoundUp(layout.predicting, buckets_.rows);
    inputs.ids.resize(shape.rows, 0);
    inputs.positions.resize(shape.rows, 0);
    inputs.candidate.resize(shape.rows, std::ssize(candidates));
    inputs.labels.resize(shape.predicting, 0);
    for (const int64_t needed : layout.rows_at) {
      shape.rows_at.push_back(RoundUp(needed, buckets_.rows));
    }
  }

  // Of each candidate: where its target stands among the targets.
  std::vector<size_t> FillTargets(std::span<const Candidate> candidates, const Layout& layout,
                                  Shape& shape, Inputs& inputs) const {
    std::map<int64_t, std::vector<size_t>> by_layer;
    for (size_t c = 0; c < candidates.size(); ++c) {
      by_layer[candidates[c].parent->objective().layer].push_back(c);
    }
    std::vector<size_t> target_of(candidates.size());
    for (const auto& [layer, which] : by_layer) {
      for (const size_t c : which) {
        target_of[c] = inputs.target_rows.size();
        inputs.target_rows.push_back(layout.last_row[c]);
        inputs.target_neurons.push_back(candidates[c].parent->objective().neuron);
      }
      const int64_t count = RoundUp(std::ssize(which), buckets_.candidates);
      shape.targets[layer] = count;
      const size_t filled = inputs.target_rows.size() + count - which.size();
      inputs.target_rows.resize(filled, 0);
      inputs.target_neurons.resize(filled, 0);
    }
    return target_of;
  }

  // [parents, layers, 2, length, kv_heads, head_dim].
  at::Tensor StackParents(std::span<const Candidate> candidates, const Layout& layout, Shape& shape,
                          Inputs& inputs) const {
    std::map<const Prepared*, int64_t> index;
    std::vector<const PreparedPrompt*> parents;
    for (const Candidate& candidate : candidates) {
      const auto [entry, is_new] = index.try_emplace(candidate.parent, std::ssize(parents));
      if (is_new) parents.push_back(static_cast<const PreparedPrompt*>(candidate.parent));
      inputs.parent_of.push_back(entry->second);
      shape.length = std::max({shape.length, std::ssize(candidate.parent->prompt()),
                               candidate.first_changed + std::ssize(candidate.tokens)});
    }
    for (size_t row = 0; row < layout.ids.size(); ++row) {
      const int64_t c = layout.candidate[row];
      inputs.parent.push_back(inputs.parent_of[c]);
      inputs.first.push_back(candidates[c].first_changed);
      inputs.base.push_back(layout.first_row[c] - candidates[c].first_changed);
    }
    // A row that nobody asked for stands first in its prompt and sees itself alone.
    for (auto* of_row : {&inputs.parent, &inputs.first, &inputs.base}) {
      of_row->resize(shape.rows, 0);
    }
    const bool has_spare = inputs.candidate.back() == std::ssize(candidates);
    inputs.parent_of.resize(RoundUp(std::ssize(candidates) + has_spare, buckets_.candidates), 0);
    std::vector<at::Tensor> padded;
    for (const PreparedPrompt* parent : parents) {
      const int64_t missing = shape.length - std::ssize(parent->ids);
      padded.push_back(missing == 0
                           ? parent->keys_values
                           : at::constant_pad_nd(parent->keys_values, {0, 0, 0, 0, 0, missing}));
    }
    padded.resize(RoundUp(std::ssize(padded), buckets_.parents), padded[0]);
    return at::stack(padded);
  }

  // -log p(first changed token) of the candidates that have one to predict, in the order of
  // `change_of`.
  at::Tensor Changes(std::span<const Candidate> candidates, std::vector<size_t>& change_of) const {
    std::map<const PreparedPrompt*, std::vector<size_t>> by_parent;
    for (size_t c = 0; c < candidates.size(); ++c) {
      if (candidates[c].first_changed == 0) continue;
      by_parent[static_cast<const PreparedPrompt*>(candidates[c].parent)].push_back(c);
    }
    std::vector<int64_t> places;
    for (const auto& [parent, which] : by_parent) {
      for (const size_t c : which) {
        places.push_back((candidates[c].first_changed - 1) * parent->log_probs.size(1) +
                         candidates[c].tokens[0]);
        change_of.push_back(c);
      }
    }
    const at::Tensor all = ToDevice(places, device());
    std::vector<at::Tensor> parts;
    int64_t first = 0;
    for (const auto& [parent, which] : by_parent) {
      parts.push_back(parent->log_probs.view(-1)
                          .index_select(0, all.narrow(0, first, std::ssize(which)))
                          .neg_());
      first += std::ssize(which);
    }
    const auto wide = at::TensorOptions(AccumulationType(model_.weights().dtype()));
    return parts.empty() ? at::empty({0}, wide.device(device())) : at::cat(parts);
  }

  const Model& model_;
  GpuKernels* const kernels_;
  Recorded recorded_;
  const PassBuckets buckets_;
};

}  // namespace

std::unique_ptr<PackedPass> MakeTensorPass(const Model& model, const GpuHelp& help,
                                           const PassBuckets& buckets) {
  return std::make_unique<TensorPass>(model, help, buckets);
}

}  // namespace epo
