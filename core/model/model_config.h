// A decoder described by numbers: what distinguishes Phi from Llama, read from a checkpoint's
// config.json.
#ifndef EPO_CORE_MODEL_MODEL_CONFIG_H_
#define EPO_CORE_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/types.h"

namespace epo {

enum class Norm { kLayerNorm, kRmsNorm };
enum class Activation { kGelu, kGeluTanh, kSilu, kRelu };

// Immutable once parsed. All sizes are positive and consistent with each other (ParseModelConfig
// checks them).
struct ModelConfig {
  // `model_type` of config.json: "phi" or "llama". Picks the table of tensor names, see
  // core/model/weights.cc.
  std::string architecture;

  int64_t hidden_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  // Fewer than `heads` under grouped-query attention; divides `heads`.
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  // Neurons a layer: the width of the MLP's hidden activation.
  int64_t intermediate_size = 0;
  // Rows of the embedding and of the head; may exceed the tokenizer's tokens.
  int64_t vocab_size = 0;
  // The most tokens a prompt may have.
  int64_t context_length = 0;
  // What a sequence begins with by the checkpoint's own account; absent where it names none, or one
  // beyond its vocabulary.
  std::optional<TokenId> bos_token;

  // The first `rotary_dim` channels of each head are rotated (all of them in Llama, 32 of 80 in
  // Phi-2).
  int64_t rotary_dim = 0;
  double rope_theta = 10000.0;

  Norm norm = Norm::kRmsNorm;
  double norm_epsilon = 1e-5;
  Activation activation = Activation::kSilu;

  // Attention and MLP both read the same normalised input (Phi) instead of following each other
  // (Llama).
  bool parallel_block = false;
  // The MLP multiplies its activation by a second projection (SwiGLU).
  bool gated_mlp = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool head_bias = false;
  // The head's matrix is the embedding.
  bool tied_head = false;
};

// Reads `path`, a config.json as Hugging Face writes it, with rope_theta and partial_rotary_factor
// at the top level or under rope_parameters. INVALID_ARGUMENT names the file and the key for a bad
// value, an architecture other than phi or llama, and for every feature that the decoder does not
// compute (rope scaling, qk_layernorm, an unknown hidden_act): never silently ignored. NOT_FOUND
// when there is no such file.
absl::StatusOr<ModelConfig> ParseModelConfig(const std::filesystem::path& path);

}  // namespace epo

#endif  // EPO_CORE_MODEL_MODEL_CONFIG_H_
