#include "core/evaluate/prepare.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/evaluate/flops.h"
#include "core/evaluate/layout.h"
#include "core/evaluate/tensors.h"
#include "core/model/linear.h"

namespace epo {
namespace {

// Causal attention within each prompt; prompts stand one after another in the rows. Keeps every
// layer's keys and values.
class CausalAttention final : public RowAttention {
 public:
  CausalAttention(const ModelConfig& config, std::span<const PrepareRequest> requests)
      : config_(config), requests_(requests) {
    keys_.reserve(config.layers);
    values_.reserve(config.layers);
  }

  at::Tensor Attend(int64_t /*layer*/, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    keys_.push_back(key.detach());
    values_.push_back(value.detach());
    std::vector<at::Tensor> outputs;
    int64_t row = 0;
    for (size_t first = 0; first < requests_.size();) {
      // A run of prompts of one length is one batch.
      const auto length = static_cast<int64_t>(requests_[first].prompt.size());
      size_t last = first + 1;
      while (last < requests_.size() &&
             static_cast<int64_t>(requests_[last].prompt.size()) == length) {
        ++last;
      }
      const auto prompts = static_cast<int64_t>(last - first);
      const auto batch = [&](const at::Tensor& x) {
        return x.narrow(0, row, prompts * length)
            .view({prompts, length, x.size(1), x.size(2)})
            .transpose(1, 2);
      };
      const at::Tensor attended = at::scaled_dot_product_attention(
          batch(query), batch(key), batch(value), /*attn_mask=*/{}, /*dropout_p=*/0.0,
          /*is_causal=*/true, /*scale=*/{}, /*enable_gqa=*/config_.kv_heads != config_.heads);
      outputs.push_back(
          attended.transpose(1, 2).reshape({prompts * length, config_.heads * config_.head_dim}));
      row += prompts * length;
      first = last;
    }
    return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
  }

  // [layers, 2, n, kv_heads, head_dim] of the prompt at `row`.
  at::Tensor KeysValues(int64_t row, int64_t length) const {
    std::vector<at::Tensor> layers;
    for (size_t i = 0; i < keys_.size(); ++i) {
      layers.push_back(
          at::stack({keys_[i].narrow(0, row, length), values_[i].narrow(0, row, length)}));
    }
    return at::stack(layers);
  }

 private:
  const ModelConfig& config_;
  std::span<const PrepareRequest> requests_;
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
};

}  // namespace

std::vector<std::shared_ptr<const Prepared>> PreparePass(const Model& model,
                                                         std::span<const PrepareRequest> wanted,
                                                         EvaluatorCounters& counters) {
  const ModelConfig& config = model.config();
  const c10::Device device = model.weights().device();
  const c10::ScalarType wide = AccumulationType(model.weights().dtype());
  const Decoder decoder(model);

  std::vector<PrepareRequest> requests(wanted.begin(), wanted.end());
  if (!UsesPackedProduct(model.weights().embedding)) {
    int64_t total = 0;
    for (const PrepareRequest& request : wanted) total += std::ssize(request.prompt);
    const int64_t missing = RoundUp(total, kLibraryRows) - total;
    if (missing > 0) requests.push_back({Prompt(missing, 0), {}, false});
  }

  std::vector<int64_t> ids, positions, starts;
  bool gradients = false;
  for (const PrepareRequest& request : requests) {
    starts.push_back(static_cast<int64_t>(ids.size()));
    for (size_t i = 0; i < request.prompt.size(); ++i) {
      ids.push_back(request.prompt[i]);
      positions.push_back(static_cast<int64_t>(i));
    }
    gradients |= request.gradients;
  }
  const auto rows = static_cast<int64_t>(ids.size());

  const at::AutoGradMode grad_mode(gradients);
  const at::Tensor embedded = decoder.Embed(ToDevice(ids, device)).set_requires_grad(gradients);
  const Rotary rotary = decoder.RotaryAt(ToDevice(positions, device));
  CausalAttention attention(config, requests);
  std::vector<at::Tensor> targets(wanted.size());
  at::Tensor residual = embedded;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    at::Tensor neurons;
    residual = decoder.Layer(layer, residual, rotary, attention, &neurons);
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (requests[i].objective.layer != layer) continue;
      const auto length = static_cast<int64_t>(requests[i].prompt.size());
      targets[i] =
          neurons.select(0, starts[i] + length - 1).select(0, requests[i].objective.neuron);
    }
  }
  const at::Tensor normed = decoder.FinalNorm(residual);
  const at::Tensor all_targets = at::stack(targets);

  // From here on the head is differentiated by hand: its gradient is (p - onehot(label)) W, and the
  // log-probabilities that p comes from are kept anyway.
  const at::Tensor log_probs = at::log_softmax(decoder.Logits(normed.detach()), -1, wide);
  const at::Tensor next = log_probs.argmax(-1).to(at::kCPU);
  std::vector<int64_t> labels(rows, 0);
  std::vector<double> label_weights(rows, 0.0);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const size_t length = requests[i].prompt.size();
    for (size_t j = 0; j + 1 < length; ++j) {
      labels[starts[i] + j] = requests[i].prompt[j + 1];
      label_weights[starts[i] + j] = 1.0 / static_cast<double>(length - 1);
    }
  }
  const at::Tensor label_column = ToDevice(labels, device).unsqueeze(1);
  const at::Tensor surprisal =
      log_probs.gather(1, label_column).squeeze(1).neg().to(at::kCPU, at::kDouble).contiguous();

  at::Tensor target_gradient, cross_entropy_gradient;
  if (gradients) {
    // One backward serves all prompts: none sees another's rows.
    target_gradient = torch::autograd::grad({all_targets.sum()}, {embedded}, /*grad_outputs=*/{},
                                            /*retain_graph=*/true)[0];
    const at::AutoGradMode no_grad(false);
    at::Tensor residue = log_probs.exp();
    residue.scatter_add_(1, label_column, at::full({rows, 1}, -1.0, residue.options()));
    residue.mul_(ToDevice(label_weights, device).to(wide).unsqueeze(1));
    const at::Tensor head_gradient =
        ProductBackward(residue.to(normed.scalar_type()), model.weights().head.weight);
    cross_entropy_gradient = torch::autograd::grad({normed}, {embedded}, {head_gradient})[0];
  }

  // Forward, and with gradients the cross-entropy's way back through all layers and the target's
  // from its own.
  int64_t layer_passes = config.layers;
  if (gradients) {
    int64_t deepest = 0;
    for (const PrepareRequest& request : wanted) {
      deepest = std::max<int64_t>(deepest, request.objective.layer + 1);
    }
    layer_passes += config.layers + deepest;
  }
  counters.matmul_flops +=
      rows * (layer_passes * LayerFlops(config) + (gradients ? 2 : 1) * HeadFlops(config));
  counters.prepared_prompts += static_cast<int64_t>(wanted.size());

  const at::Tensor host_targets = all_targets.detach().to(at::kCPU, at::kDouble);
  std::vector<std::shared_ptr<const Prepared>> results;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto length = static_cast<int64_t>(requests[i].prompt.size());
    auto prepared = std::make_shared<PreparedPrompt>();
    prepared->ids = requests[i].prompt;
    prepared->goal = requests[i].objective;
    prepared->target = host_targets.data_ptr<double>()[i];
    prepared->next = static_cast<TokenId>(next.data_ptr<int64_t>()[starts[i] + length - 1]);
    const double* nats = surprisal.data_ptr<double>() + starts[i];
    prepared->surprisal.assign(nats, nats + length - 1);
    prepared->cross_entropy = static_cast<float>(
        length > 1 ? std::accumulate(nats, nats + length - 1, 0.0) / static_cast<double>(length - 1)
                   : std::numeric_limits<double>::quiet_NaN());
    if (requests[i].gradients) {
      // Copies: a prompt that survives long must not keep the whole pass alive.
      prepared->keys_values = attention.KeysValues(starts[i], length);
      prepared->log_probs = log_probs.narrow(0, starts[i], length - 1).clone();
      prepared->target_gradient = target_gradient.narrow(0, starts[i], length).clone();
      prepared->cross_entropy_gradient =
          cross_entropy_gradient.narrow(0, starts[i], length).clone();
    }
    results.push_back(std::move(prepared));
  }
  return results;
}

}  // namespace epo
