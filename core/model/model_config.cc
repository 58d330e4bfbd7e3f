#include "core/model/model_config.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/json_text.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using Json = nlohmann::json;

// The wire contract has sizes as int32.
constexpr int64_t kMaxDimension = std::numeric_limits<int32_t>::max();
// Bounds the rotary tables, which no tensor of the checkpoint vouches for.
constexpr int64_t kMaxContext = int64_t{1} << 20;

// Reads keys of one config.json. The first error sticks, so that a caller reads every key and asks
// once.
class ConfigReader {
 public:
  ConfigReader(std::string file, const Json& json) : file_(std::move(file)), json_(json) {}

  const absl::Status& status() const { return status_; }

  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(file_, ": ", what));
  }

  // Present and not null.
  bool Has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }

  int64_t Positive(const char* key, std::optional<int64_t> fallback = std::nullopt) {
    if (!Has(key)) {
      if (!fallback) Fail(absl::StrCat("'", key, "' is missing"));
      return fallback.value_or(1);
    }
    const Json& value = json_[key];
    if (!value.is_number_integer() || value.get<double>() < 1 ||
        value.get<double>() > static_cast<double>(kMaxDimension)) {
      Fail(absl::StrCat("'", key, "' is ", ShowJson(value), ", but must be an integer from 1 to ",
                        kMaxDimension));
      return 1;
    }
    return value.get<int64_t>();
  }

  double PositiveReal(const Json& object, const char* key, double fallback) {
    if (!object.contains(key) || object[key].is_null()) return fallback;
    const Json& value = object[key];
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0) {
      Fail(absl::StrCat("'", key, "' is ", ShowJson(value), ", but must be a positive number"));
      return fallback;
    }
    return value.get<double>();
  }

  bool Bool(const char* key, bool fallback) {
    if (!Has(key)) return fallback;
    if (!json_[key].is_boolean()) {
      Fail(absl::StrCat("'", key, "' is ", ShowJson(json_[key]), ", but must be true or false"));
      return fallback;
    }
    return json_[key].get<bool>();
  }

  std::string String(const char* key) {
    if (!Has(key)) {
      Fail(absl::StrCat("'", key, "' is missing"));
      return "";
    }
    if (!json_[key].is_string()) {
      Fail(absl::StrCat("'", key, "' is ", ShowJson(json_[key]), ", but must be a string"));
      return "";
    }
    return json_[key].get<std::string>();
  }

  const Json& json() const { return json_; }

 private:
  std::string file_;
  const Json& json_;
  absl::Status status_;
};

Activation ReadActivation(ConfigReader& reader) {
  const std::string name = reader.String("hidden_act");
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "relu") return Activation::kRelu;
  reader.Fail(
      absl::StrCat("hidden_act ", QuoteJson(name),
                   " is not supported; gelu, gelu_new, gelu_pytorch_tanh, silu and relu are"));
  return Activation::kSilu;
}

std::optional<TokenId> ReadBosToken(ConfigReader& reader, int64_t vocab_size) {
  if (!reader.Has("bos_token_id")) return std::nullopt;
  const Json& value = reader.json()["bos_token_id"];
  if (!value.is_number_integer()) {
    reader.Fail(absl::StrCat("'bos_token_id' is ", ShowJson(value), ", but must be an integer"));
    return std::nullopt;
  }
  const double id = value.get<double>();
  if (id < 0 || id >= static_cast<double>(vocab_size)) return std::nullopt;
  return value.get<TokenId>();
}

// rope_theta and partial_rotary_factor, from the top level or from rope_parameters, which wins.
void ReadRope(ConfigReader& reader, double default_partial, ModelConfig& config) {
  const Json& json = reader.json();
  double partial = reader.PositiveReal(json, "partial_rotary_factor", default_partial);
  config.rope_theta = reader.PositiveReal(json, "rope_theta", 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.Has(key)) continue;
    const Json& rope = json[key];
    if (!rope.is_object()) {
      reader.Fail(absl::StrCat("'", key, "' must be an object or null"));
      continue;
    }
    for (const char* type_key : {"rope_type", "type"}) {
      if (!rope.contains(type_key)) continue;
      if (!rope[type_key].is_string() || rope[type_key].get<std::string>() != "default") {
        reader.Fail(absl::StrCat(key, ": rope scaling ", ShowJson(rope[type_key]),
                                 " is not supported; only 'default' is"));
      }
    }
    partial = reader.PositiveReal(rope, "partial_rotary_factor", partial);
    config.rope_theta = reader.PositiveReal(rope, "rope_theta", config.rope_theta);
  }
  if (partial > 1) {
    reader.Fail(absl::StrCat("'partial_rotary_factor' is ", partial, ", but must be at most 1"));
    partial = 1;
  }
  config.rotary_dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * partial);
  if (config.rotary_dim < 2 || config.rotary_dim % 2 != 0) {
    reader.Fail(absl::StrCat("the rotated part of a head is ", config.rotary_dim,
                             " channels wide, but must be an even number of at least 2"));
  }
}

void ReadPhi(ConfigReader& reader, ModelConfig& config) {
  config.norm = Norm::kLayerNorm;
  config.norm_epsilon = reader.PositiveReal(reader.json(), "layer_norm_eps", 1e-5);
  config.parallel_block = true;
  config.attention_bias = config.mlp_bias = config.head_bias = true;
  if (reader.Bool("qk_layernorm", false)) reader.Fail("qk_layernorm is not supported");
  ReadRope(reader, 0.5, config);
}

void ReadLlama(ConfigReader& reader, ModelConfig& config) {
  config.norm = Norm::kRmsNorm;
  config.norm_epsilon = reader.PositiveReal(reader.json(), "rms_norm_eps", 1e-6);
  config.gated_mlp = true;
  config.attention_bias = reader.Bool("attention_bias", false);
  config.mlp_bias = reader.Bool("mlp_bias", false);
  ReadRope(reader, 1.0, config);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat(path.string(), ": no such file"));
  const Json json = Json::parse(stream, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a JSON object"));
  }

  ConfigReader reader(path.string(), json);
  ModelConfig config;
  config.architecture = reader.String("model_type");
  if (!reader.status().ok()) return reader.status();
  if (config.architecture != "phi" && config.architecture != "llama") {
    reader.Fail(absl::StrCat("model_type ", QuoteJson(config.architecture),
                             " is not supported; 'phi' and 'llama' are"));
    return reader.status();
  }
  config.hidden_size = reader.Positive("hidden_size");
  config.layers = reader.Positive("num_hidden_layers");
  config.heads = reader.Positive("num_attention_heads");
  config.kv_heads = reader.Positive("num_key_value_heads", config.heads);
  config.head_dim = reader.Positive("head_dim", config.hidden_size / config.heads);
  config.intermediate_size = reader.Positive("intermediate_size");
  config.vocab_size = reader.Positive("vocab_size");
  config.context_length = reader.Positive("max_position_embeddings");
  if (config.context_length > kMaxContext) {
    reader.Fail(absl::StrCat("'max_position_embeddings' is ", config.context_length,
                             ", but must be at most ", kMaxContext));
  }
  config.bos_token = ReadBosToken(reader, config.vocab_size);
  config.tied_head = reader.Bool("tie_word_embeddings", false);
  config.activation = ReadActivation(reader);
  if (config.heads % config.kv_heads != 0) {
    reader.Fail(absl::StrCat("num_attention_heads ", config.heads,
                             " is not a multiple of num_key_value_heads ", config.kv_heads));
  }
  if (!reader.Has("head_dim") && config.hidden_size % config.heads != 0) {
    reader.Fail(absl::StrCat("hidden_size ", config.hidden_size,
                             " is not a multiple of num_attention_heads ", config.heads));
  }
  if (config.architecture == "phi") {
    ReadPhi(reader, config);
  } else {
    ReadLlama(reader, config);
  }
  if (!reader.status().ok()) return reader.status();
  return config;
}

}  // namespace epo
