#include "core/evaluate/prepare.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "core/evaluate/flops.h"
#include "core/evaluate/layout.h"
#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Everything that shapes a pass.
struct Shape {
  // Prompts one after another of one length.
  struct Stretch {
    int64_t prompts = 0;
    int64_t length = 0;
  };
  std::vector<Stretch> stretches;
  // How many prompts have their target in a layer, for each that has any.
  std::map<int64_t, int64_t> targets;
  bool gradients = false;
  // 1, or 2 for one copy of the prompts for each gradient.
  int64_t copies = 1;

  std::vector<int64_t> Key() const {
    std::vector<int64_t> key = {gradients, copies, std::ssize(stretches)};
    for (const Stretch& stretch : stretches) {
      key.insert(key.end(), {stretch.prompts, stretch.length});
    }
    for (const auto& [layer, prompts] : targets) key.insert(key.end(), {layer, prompts});
    return key;
  }
};

// Causal attention within each prompt; prompts stand one after another in the rows, and again for a
// second copy. Keeps every layer's keys and values of the first.
class CausalAttention final : public RowAttention {
 public:
  CausalAttention(const ModelConfig& config, const Shape& shape) : config_(config), shape_(shape) {
    keys_.reserve(config.layers);
    values_.reserve(config.layers);
  }

  at::Tensor Attend(int64_t /*layer*/, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    keys_.push_back(key.detach().narrow(0, 0, key.size(0) / shape_.copies));
    values_.push_back(value.detach().narrow(0, 0, value.size(0) / shape_.copies));
    std::vector<at::Tensor> outputs;
    int64_t row = 0;
    for (const Shape::Stretch& stretch : Stretches()) {
      const int64_t rows = stretch.prompts * stretch.length;
      const auto batch = [&](const at::Tensor& x) {
        return x.narrow(0, row, rows)
            .view({stretch.prompts, stretch.length, x.size(1), x.size(2)})
            .transpose(1, 2);
      };
      const at::Tensor attended = at::scaled_dot_product_attention(
          batch(query), batch(key), batch(value), /*attn_mask=*/{}, /*dropout_p=*/0.0,
          /*is_causal=*/true, /*scale=*/{}, /*enable_gqa=*/config_.kv_heads != config_.heads);
      outputs.push_back(attended.transpose(1, 2).reshape({rows, config_.heads * config_.head_dim}));
      row += rows;
    }
    return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
  }

  // [layers, 2, rows, kv_heads, head_dim], of one copy.
  at::Tensor KeysValues() const { return at::stack({at::stack(keys_), at::stack(values_)}, 1); }

 private:
  // Copies of one stretch are another stretch of the same length.
  std::vector<Shape::Stretch> Stretches() const {
    std::vector<Shape::Stretch> all = shape_.stretches;
    if (shape_.copies == 1) return all;
    if (all.size() == 1) return {{2 * all[0].prompts, all[0].length}};
    all.insert(all.end(), shape_.stretches.begin(), shape_.stretches.end());
    return all;
  }

  const ModelConfig& config_;
  const Shape& shape_;
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
};

// One pass's numbers that differ from pass to pass of one shape; one tensor, so that they go to the
// device together.
struct Inputs {
  std::vector<int64_t> ids, positions, labels;
  // In the order of Shape::targets.
  std::vector<int64_t> target_rows, target_neurons;

  at::Tensor On(c10::Device device) const {
    std::vector<int64_t> all;
    for (const auto* part : {&ids, &positions, &labels, &target_rows, &target_neurons}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    return ToDevice(all, device);
  }
};

// Of the rows' weighted cross-entropy, with respect to what the head reads.
at::Tensor HeadGradient(const Model& model, const at::Tensor& log_probs,
                        const at::Tensor& label_column, const at::Tensor& label_weights) {
  const at::AutoGradMode no_grad(false);
  at::Tensor residue = log_probs.exp();
  residue.scatter_add_(1, label_column, at::full_like(label_column, -1.0, residue.options()));
  residue.mul_(label_weights.unsqueeze(1));
  return ProductBackward(residue.to(model.weights().compute_dtype()), model.weights().head.weight);
}

// What Forward() gives, at these places.
enum Result { kForTheHost, kKeysValues, kLogProbs, kTargetGradient, kCrossEntropyGradient };

// `inputs` are Inputs' and each row's share in its prompt's cross-entropy. kForTheHost is float64:
// of each row -log p(label) and its most probable next token, of each target its value. The others
// are only there with gradients.
std::vector<at::Tensor> Forward(const Model& model, GpuKernels* kernels, const Shape& shape,
                                const std::vector<at::Tensor>& inputs) {
  const ModelConfig& config = model.config();
  const c10::ScalarType wide = AccumulationType(model.weights().dtype());
  const int64_t rows = inputs[1].size(0);
  const int64_t prompts = (inputs[0].size(0) - 3 * rows) / 2;
  const auto parts = inputs[0].split_with_sizes({rows, rows, rows, prompts, prompts});
  const at::Tensor label_column = parts[2].unsqueeze(1);

  const at::AutoGradMode grad_mode(shape.gradients);
  const Decoder decoder(model, kernels);
  const auto copied = [&](const at::Tensor& x) {
    return shape.copies == 1 ? x : x.repeat(shape.copies);
  };
  const at::Tensor embedded = decoder.Embed(copied(parts[0])).set_requires_grad(shape.gradients);
  const Rotary rotary = decoder.RotaryAt(copied(parts[1]));
  CausalAttention attention(config, shape);
  std::vector<at::Tensor> targets;
  int64_t first = 0;
  at::Tensor residual = embedded;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    at::Tensor neurons;
    residual = decoder.Layer(layer, residual, rotary, attention, &neurons);
    const auto found = shape.targets.find(layer);
    if (found == shape.targets.end()) continue;
    targets.push_back(neurons.index(
        {parts[3].narrow(0, first, found->second), parts[4].narrow(0, first, found->second)}));
    first += found->second;
  }
  // Targets are read from the first copy, the head from the last.
  const at::Tensor normed = decoder.FinalNorm(residual.narrow(0, (shape.copies - 1) * rows, rows));
  const at::Tensor all_targets = at::cat(targets);

  // From here on the head is differentiated by hand: its gradient is (p - onehot(label)) W, and the
  // log-probabilities that p comes from are kept anyway.
  const at::Tensor log_probs = at::log_softmax(decoder.Logits(normed.detach()), -1, wide);
  const at::Tensor surprisal = log_probs.gather(1, label_column).squeeze(1).neg();
  const at::Tensor for_the_host =
      at::cat({surprisal.to(at::kDouble), log_probs.argmax(-1).to(at::kDouble),
               all_targets.detach().to(at::kDouble)});
  if (!shape.gradients) return {for_the_host};

  // One backward serves all prompts: none sees another's rows.
  const auto gradient = [&](const std::vector<at::Tensor>& of, const std::vector<at::Tensor>& from,
                            bool again) {
    return torch::autograd::grad(of, {embedded}, from, /*retain_graph=*/again)[0];
  };
  const at::Tensor ones = at::ones_like(all_targets);
  const at::Tensor head_gradient =
      HeadGradient(model, log_probs, label_column, inputs[1]).to(normed.scalar_type());
  at::Tensor target_gradient, cross_entropy_gradient;
  if (shape.copies == 1) {
    target_gradient = gradient({all_targets}, {ones}, /*again=*/true);
    cross_entropy_gradient = gradient({normed}, {head_gradient}, /*again=*/false);
  } else {
    const at::Tensor both = gradient({all_targets, normed}, {ones, head_gradient}, /*again=*/false);
    target_gradient = both.narrow(0, 0, rows);
    cross_entropy_gradient = both.narrow(0, rows, rows);
  }
  return {for_the_host, attention.KeysValues(), log_probs, target_gradient, cross_entropy_gradient};
}

// Forward, and with gradients the cross-entropy's way back through all layers and the target's from
// its own.
int64_t Flops(const ModelConfig& config, const Shape& shape, int64_t rows) {
  const int64_t deepest = shape.targets.rbegin()->first + 1;
  const int64_t layer_passes = config.layers + (shape.gradients ? config.layers + deepest : 0);
  return rows * (layer_passes * LayerFlops(config) + (shape.gradients ? 2 : 1) * HeadFlops(config));
}

}  // namespace

std::vector<std::shared_ptr<const Prepared>> PromptReader::Read(
    std::span<const PrepareRequest> wanted, EvaluatorCounters& counters) {
  const c10::Device device = model_.weights().device();
  std::vector<PrepareRequest> requests(wanted.begin(), wanted.end());
  while (std::ssize(requests) % bucket_ != 0) requests.push_back(wanted.back());

  Shape shape;
  shape.gradients = wanted[0].gradients;
  shape.copies = shape.gradients ? copies_ : 1;
  Inputs inputs;
  std::vector<double> label_weights;
  std::vector<int64_t> starts;
  std::map<int64_t, std::vector<size_t>> by_layer;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Prompt& prompt = requests[i].prompt;
    const auto length = std::ssize(prompt);
    if (shape.stretches.empty() || shape.stretches.back().length != length) {
      shape.stretches.push_back({0, length});
    }
    ++shape.stretches.back().prompts;
    starts.push_back(std::ssize(inputs.ids));
    by_layer[requests[i].objective.layer].push_back(i);
    for (int64_t j = 0; j < length; ++j) {
      const bool predicts = j + 1 < length;
      inputs.ids.push_back(prompt[j]);
      inputs.positions.push_back(j);
      inputs.labels.push_back(predicts ? prompt[j + 1] : 0);
      label_weights.push_back(predicts ? 1.0 / static_cast<double>(length - 1) : 0.0);
    }
  }
  const auto rows = std::ssize(inputs.ids);
  // Of each request: where its target stands among the targets.
  std::vector<int64_t> target_of(requests.size());
  for (const auto& [layer, which] : by_layer) {
    shape.targets[layer] = std::ssize(which);
    for (const size_t i : which) {
      target_of[i] = std::ssize(inputs.target_rows);
      inputs.target_rows.push_back(starts[i] + std::ssize(requests[i].prompt) - 1);
      inputs.target_neurons.push_back(requests[i].objective.neuron);
    }
  }
  const c10::ScalarType wide = AccumulationType(model_.weights().dtype());
  const auto results =
      recorded_.Call(shape.Key(), {inputs.On(device), ToDevice(label_weights, device).to(wide)},
                     [&model = model_, kernels = kernels_, shape](const auto& tensors) {
                       return Forward(model, kernels, shape, tensors);
                     });
  counters.matmul_flops += Flops(model_.config(), shape, rows);
  counters.prepared_prompts += std::ssize(wanted);

  std::vector<std::shared_ptr<PreparedPrompt>> prompts;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto length = std::ssize(wanted[i].prompt);
    auto prepared = std::make_shared<PreparedPrompt>();
    prepared->ids = wanted[i].prompt;
    prepared->goal = wanted[i].objective;
    if (shape.gradients) {
      // Copies: a prompt that survives long must not keep the whole pass alive.
      const auto rows_of = [&](Result result, int64_t dim, int64_t count) {
        return results[result].narrow(dim, starts[i], count).clone(at::MemoryFormat::Contiguous);
      };
      prepared->keys_values = rows_of(kKeysValues, 2, length);
      prepared->log_probs = rows_of(kLogProbs, 0, length - 1);
      prepared->target_gradient = rows_of(kTargetGradient, 0, length);
      prepared->cross_entropy_gradient = rows_of(kCrossEntropyGradient, 0, length);
    }
    prompts.push_back(std::move(prepared));
  }
  // Waits for the device.
  const at::Tensor host = results[kForTheHost].to(at::kCPU);
  const double* values = host.const_data_ptr<double>();
  for (size_t i = 0; i < wanted.size(); ++i) {
    PreparedPrompt& prepared = *prompts[i];
    const auto length = std::ssize(prepared.ids);
    const double* nats = values + starts[i];
    prepared.target = values[2 * rows + target_of[i]];
    prepared.next = static_cast<TokenId>(values[rows + starts[i] + length - 1]);
    prepared.surprisal.assign(nats, nats + length - 1);
    prepared.cross_entropy = static_cast<float>(
        length > 1 ? std::accumulate(nats, nats + length - 1, 0.0) / static_cast<double>(length - 1)
                   : std::numeric_limits<double>::quiet_NaN());
  }
  return {prompts.begin(), prompts.end()};
}

}  // namespace epo
