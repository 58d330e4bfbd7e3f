#include "core/model/weights.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/substitute.h"
#include "core/model/json_text.h"

namespace epo {
namespace {

// Where an architecture's checkpoints keep each role; $0 is the layer.
struct TensorNames {
  const char* embedding;
  const char* attention_norm;
  const char* mlp_norm;
  const char* query;
  const char* key;
  const char* value;
  const char* attention_output;
  const char* mlp_input;
  const char* mlp_factor;
  const char* mlp_output;
  const char* final_norm;
  const char* head;
};

constexpr TensorNames kPhiNames = {
    .embedding = "model.embed_tokens",
    .attention_norm = "model.layers.$0.input_layernorm",
    .mlp_norm = nullptr,
    .query = "model.layers.$0.self_attn.q_proj",
    .key = "model.layers.$0.self_attn.k_proj",
    .value = "model.layers.$0.self_attn.v_proj",
    .attention_output = "model.layers.$0.self_attn.dense",
    .mlp_input = "model.layers.$0.mlp.fc1",
    .mlp_factor = nullptr,
    .mlp_output = "model.layers.$0.mlp.fc2",
    .final_norm = "model.final_layernorm",
    .head = "lm_head",
};

constexpr TensorNames kLlamaNames = {
    .embedding = "model.embed_tokens",
    .attention_norm = "model.layers.$0.input_layernorm",
    .mlp_norm = "model.layers.$0.post_attention_layernorm",
    .query = "model.layers.$0.self_attn.q_proj",
    .key = "model.layers.$0.self_attn.k_proj",
    .value = "model.layers.$0.self_attn.v_proj",
    .attention_output = "model.layers.$0.self_attn.o_proj",
    .mlp_input = "model.layers.$0.mlp.gate_proj",
    .mlp_factor = "model.layers.$0.mlp.up_proj",
    .mlp_output = "model.layers.$0.mlp.down_proj",
    .final_norm = "model.norm",
    .head = "lm_head",
};

// Takes tensors one by one; the first error sticks.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, c10::Device device, c10::ScalarType dtype)
      : checkpoint_(checkpoint), device_(device), dtype_(dtype) {}

  const absl::Status& status() const { return status_; }

  at::Tensor Take(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status_.ok()) return {};
    absl::StatusOr<Checkpoint::Tensor> found = checkpoint_.Find(name);
    if (!found.ok()) {
      status_ = found.status();
      return {};
    }
    const TensorView& view = found->view;
    const auto bad = [&](const std::string& what) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(found->file->path().string(), ": tensor ", QuoteJson(name), " ", what));
      return at::Tensor();
    };
    if (view.shape != shape) {
      return bad(absl::StrCat("has shape [", absl::StrJoin(view.shape, ", "),
                              "], but config.json asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    c10::ScalarType stored;
    if (view.dtype == "F64") {
      stored = c10::kDouble;
    } else if (view.dtype == "F32") {
      stored = c10::kFloat;
    } else if (view.dtype == "F16") {
      stored = c10::kHalf;
    } else if (view.dtype == "BF16") {
      stored = c10::kBFloat16;
    } else {
      return bad(absl::StrCat("has dtype ", view.dtype, "; F64, F32, F16 and BF16 are supported"));
    }
    // Never written through: every tensor of the model is read-only.
    at::Tensor mapped =
        at::from_blob(const_cast<std::byte*>(view.data), shape, at::TensorOptions(stored));
    const bool aligned = reinterpret_cast<uintptr_t>(view.data) % c10::elementSize(stored) == 0;
    return aligned ? mapped.to(device_, dtype_) : mapped.clone().to(device_, dtype_);
  }

  LinearWeights TakeLinear(const std::string& name, int64_t out, int64_t in, bool bias) {
    LinearWeights linear;
    linear.weight = Take(name + ".weight", {out, in});
    if (bias) linear.bias = Take(name + ".bias", {out});
    return linear;
  }

  NormWeights TakeNorm(const std::string& name, int64_t width, bool bias) {
    NormWeights norm;
    norm.weight = Take(name + ".weight", {width});
    if (bias) norm.bias = Take(name + ".bias", {width});
    return norm;
  }

 private:
  const Checkpoint& checkpoint_;
  c10::Device device_;
  c10::ScalarType dtype_;
  absl::Status status_;
};

void MakeRopeTables(const ModelConfig& config, c10::Device device, Weights& weights) {
  const auto options = at::TensorOptions(c10::kFloat);
  const at::Tensor exponent =
      at::arange(0, config.rotary_dim, 2, at::TensorOptions(c10::kLong)).to(c10::kFloat) /
      static_cast<double>(config.rotary_dim);
  const at::Tensor inverse_frequency = 1.0 / at::pow(at::Scalar(config.rope_theta), exponent);
  const at::Tensor position = at::arange(config.context_length, options);
  const at::Tensor angle = position.unsqueeze(1) * inverse_frequency.unsqueeze(0);
  const c10::ScalarType dtype = weights.dtype() == c10::kDouble ? c10::kDouble : c10::kFloat;
  weights.rope_cos = at::cos(angle).to(device, dtype);
  weights.rope_sin = at::sin(angle).to(device, dtype);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(const Checkpoint& checkpoint,
                                                     const ModelConfig& config, c10::Device device,
                                                     c10::ScalarType dtype) {
  const TensorNames& names = config.architecture == "phi" ? kPhiNames : kLlamaNames;
  const bool norm_bias = config.norm == Norm::kLayerNorm;
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  const int64_t query_width = config.heads * config.head_dim;
  const int64_t kv_width = config.kv_heads * config.head_dim;

  Loader loader(checkpoint, device, dtype);
  auto weights = std::make_unique<Weights>();
  weights->embedding =
      loader.Take(absl::StrCat(names.embedding, ".weight"), {config.vocab_size, hidden});
  for (int64_t i = 0; i < config.layers; ++i) {
    const auto name = [i](const char* pattern) { return absl::Substitute(pattern, i); };
    LayerWeights layer;
    layer.attention_norm = loader.TakeNorm(name(names.attention_norm), hidden, norm_bias);
    if (!config.parallel_block) {
      layer.mlp_norm = loader.TakeNorm(name(names.mlp_norm), hidden, norm_bias);
    }
    const bool attention_bias = config.attention_bias;
    layer.query = loader.TakeLinear(name(names.query), query_width, hidden, attention_bias);
    layer.key = loader.TakeLinear(name(names.key), kv_width, hidden, attention_bias);
    layer.value = loader.TakeLinear(name(names.value), kv_width, hidden, attention_bias);
    layer.attention_output =
        loader.TakeLinear(name(names.attention_output), hidden, query_width, attention_bias);
    layer.mlp_input =
        loader.TakeLinear(name(names.mlp_input), intermediate, hidden, config.mlp_bias);
    if (config.gated_mlp) {
      layer.mlp_factor =
          loader.TakeLinear(name(names.mlp_factor), intermediate, hidden, config.mlp_bias);
    }
    layer.mlp_output =
        loader.TakeLinear(name(names.mlp_output), hidden, intermediate, config.mlp_bias);
    weights->layers.push_back(std::move(layer));
    if (!loader.status().ok()) return loader.status();
  }
  weights->final_norm = loader.TakeNorm(names.final_norm, hidden, norm_bias);
  if (config.tied_head) {
    weights->head.weight = weights->embedding;
    if (config.head_bias) {
      weights->head.bias = loader.Take(absl::StrCat(names.head, ".bias"), {config.vocab_size});
    }
  } else {
    weights->head = loader.TakeLinear(names.head, config.vocab_size, hidden, config.head_bias);
  }
  if (!loader.status().ok()) return loader.status();
  weights->files = checkpoint.files();
  MakeRopeTables(config, device, *weights);
  return weights;
}

}  // namespace epo
