#include "core/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/unit/core/temp_dir.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

Json LlamaConfig() {
  return {{"model_type", "llama"},
          {"hidden_size", 576},
          {"num_hidden_layers", 30},
          {"num_attention_heads", 9},
          {"num_key_value_heads", 3},
          {"intermediate_size", 1536},
          {"vocab_size", 49152},
          {"max_position_embeddings", 8192},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"tie_word_embeddings", true},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 100000.0}}}};
}

absl::StatusOr<ModelConfig> Parse(const std::string& text) {
  const TempDir dir;
  return ParseModelConfig(dir.Write("config.json", text));
}

std::string Message(const absl::StatusOr<ModelConfig>& config) {
  return std::string(config.status().message());
}

// Phi-2's config.json as published.
TEST(ModelConfigTest, ReadsPhi2) {
  const auto config = Parse(R"({
    "_name_or_path": "microsoft/phi-2", "architectures": ["PhiForCausalLM"],
    "attention_dropout": 0.0, "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256,
    "hidden_act": "gelu_new", "hidden_size": 2560, "initializer_range": 0.02,
    "intermediate_size": 10240, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
    "model_type": "phi", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": false,
    "resid_pdrop": 0.1, "rope_scaling": null, "rope_theta": 10000.0,
    "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.37.0",
    "use_cache": true, "vocab_size": 51200})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "phi");
  EXPECT_EQ(config->hidden_size, 2560);
  EXPECT_EQ(config->layers, 32);
  EXPECT_EQ(config->heads, 32);
  EXPECT_EQ(config->kv_heads, 32);
  EXPECT_EQ(config->head_dim, 80);
  EXPECT_EQ(config->intermediate_size, 10240);
  EXPECT_EQ(config->vocab_size, 51200);
  EXPECT_EQ(config->context_length, 2048);
  EXPECT_EQ(config->rotary_dim, 32);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->norm, Norm::kLayerNorm);
  EXPECT_EQ(config->norm_epsilon, 1e-5);
  EXPECT_EQ(config->activation, Activation::kGeluTanh);
  EXPECT_TRUE(config->parallel_block);
  EXPECT_FALSE(config->gated_mlp);
  EXPECT_TRUE(config->attention_bias && config->mlp_bias && config->head_bias);
  EXPECT_FALSE(config->tied_head);
}

TEST(ModelConfigTest, ReadsLlama) {
  const auto config = Parse(LlamaConfig().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->heads, 9);
  EXPECT_EQ(config->kv_heads, 3);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->rotary_dim, 64);
  EXPECT_EQ(config->rope_theta, 100000.0);
  EXPECT_EQ(config->norm, Norm::kRmsNorm);
  EXPECT_EQ(config->activation, Activation::kSilu);
  EXPECT_TRUE(config->gated_mlp && config->tied_head);
  EXPECT_FALSE(config->parallel_block || config->attention_bias || config->mlp_bias ||
               config->head_bias);
}

// rope_parameters wins over the top level; an explicit head_dim over hidden_size / heads; what is
// absent has transformers' default.
TEST(ModelConfigTest, KnowsPrecedenceAndDefaults) {
  Json phi = TinyPhiConfig();
  phi["rope_parameters"] = {{"rope_theta", 123.0}, {"partial_rotary_factor", 1.0}};
  auto config = Parse(phi.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 123.0);
  EXPECT_EQ(config->rotary_dim, 4);

  phi = TinyPhiConfig();
  for (const char* key : {"rope_theta", "partial_rotary_factor", "rope_scaling"}) phi.erase(key);
  config = Parse(phi.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->rotary_dim, 2);
  EXPECT_EQ(config->kv_heads, config->heads);

  Json llama = LlamaConfig();
  llama["head_dim"] = 32;
  llama["attention_bias"] = true;
  llama["mlp_bias"] = true;
  for (const char* key : {"tie_word_embeddings", "rms_norm_eps", "rope_parameters"}) {
    llama.erase(key);
  }
  config = Parse(llama.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_EQ(config->norm_epsilon, 1e-6);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_TRUE(config->attention_bias && config->mlp_bias);
  EXPECT_FALSE(config->tied_head);
}

TEST(ModelConfigTest, ReadsTheFirstTokenWhereThereIsOne) {
  Json config = TinyPhiConfig();
  const auto bos = [&](const Json& value) {
    config["bos_token_id"] = value;
    return Parse(config.dump());
  };
  EXPECT_EQ(bos(0)->bos_token, 0);
  EXPECT_EQ(bos(519)->bos_token, 519);
  // Published configurations name ids that their vocabulary has not.
  for (const Json& none : {Json(520), Json(-1), Json(UINT64_MAX), Json(nullptr)}) {
    EXPECT_EQ(bos(none)->bos_token, std::nullopt) << none;
  }
  for (const Json& bad : {Json("1"), Json(1.5), Json::array({1})}) {
    EXPECT_THAT(Message(bos(bad)), HasSubstr("'bos_token_id' is ")) << bad;
  }
  config.erase("bos_token_id");
  EXPECT_EQ(Parse(config.dump())->bos_token, std::nullopt);
}

TEST(ModelConfigTest, RefusesBadValuesByFileAndKey) {
  struct Case {
    Json base, patch;
    std::vector<std::string> named;
  };
  const Json phi = TinyPhiConfig(), llama = LlamaConfig();
  std::vector<Case> cases = {
      {phi, {{"model_type", "gpt2"}}, {"model_type", "gpt2", "phi", "llama"}},
      {phi, {{"model_type", 3}}, {"model_type", "3"}},
      {phi, {{"qk_layernorm", true}}, {"qk_layernorm"}},
      {phi, {{"qk_layernorm", "no"}}, {"qk_layernorm", "true or false"}},
      {phi, {{"hidden_act", "mish"}}, {"hidden_act", "mish"}},
      {phi, {{"hidden_act", nullptr}}, {"hidden_act", "missing"}},
      {phi, {{"hidden_size", 9}}, {"hidden_size", "num_attention_heads"}},
      {phi, {{"num_key_value_heads", 3}}, {"num_attention_heads", "num_key_value_heads"}},
      {phi, {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}, {"rope_scaling", "linear"}},
      {phi, {{"rope_scaling", 2}}, {"rope_scaling"}},
      {phi, {{"rope_parameters", "default"}}, {"rope_parameters"}},
      {phi, {{"rope_theta", 0}}, {"rope_theta"}},
      {phi, {{"rope_theta", "big"}}, {"rope_theta"}},
      {phi, {{"partial_rotary_factor", 1.5}}, {"partial_rotary_factor", "1.5"}},
      {phi, {{"partial_rotary_factor", -0.5}}, {"partial_rotary_factor"}},
      {phi, {{"partial_rotary_factor", 0.1}}, {"rotated"}},
      {phi, {{"layer_norm_eps", -1e-5}}, {"layer_norm_eps"}},
      {phi, {{"tie_word_embeddings", 1}}, {"tie_word_embeddings"}},
      {llama, {{"rms_norm_eps", "tiny"}}, {"rms_norm_eps"}},
      {llama, {{"attention_bias", 0}}, {"attention_bias"}},
      {llama, {{"mlp_bias", "false"}}, {"mlp_bias"}},
      {llama, {{"head_dim", 0}}, {"head_dim"}},
      {llama, {{"head_dim", 33}}, {"rotated"}},
      {llama, {{"rope_parameters", {{"rope_type", "llama3"}}}}, {"rope_parameters", "llama3"}},
      {llama, {{"rope_parameters", {{"rope_type", 1}}}}, {"rope_parameters"}},
      {llama, {{"rope_parameters", {{"rope_theta", -1}}}}, {"rope_theta"}},
  };
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "vocab_size", "max_position_embeddings"}) {
    cases.push_back({llama, {{key, nullptr}}, {key, "missing"}});
    for (const Json& bad : {Json(0), Json(-4), Json(2.5), Json("64"), Json(true), Json(1e30),
                            Json(INT64_MAX), Json(UINT64_MAX), Json::array({1})}) {
      cases.push_back({phi, {{key, bad}}, {key, bad.dump()}});
    }
  }
  for (const Case& c : cases) {
    Json json = c.base;
    json.update(c.patch);
    const auto config = Parse(json.dump());
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << c.patch;
    EXPECT_THAT(Message(config), AllOf(HasSubstr("config.json: "), Not(HasSubstr("\n"))));
    for (const std::string& name : c.named) EXPECT_THAT(Message(config), HasSubstr(name));
  }
}

// An error about a value does not hold all of it, nor take its depth in stack.
TEST(ModelConfigTest, ErrorsAreShortLines) {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  const std::string line = "\"line\\nline" + std::string(2000, 'x') + "\"";
  for (const std::string& value : {deep, line}) {
    for (const char* key : {"model_type", "hidden_size", "hidden_act", "rope_theta"}) {
      Json config = TinyPhiConfig();
      config.erase(key);
      // Spliced in as text: to dump the deep one would recurse.
      std::string text = config.dump();
      text.insert(1, "\"" + std::string(key) + "\":" + value + ",");
      const std::string message = Message(Parse(text));
      EXPECT_THAT(message, AllOf(HasSubstr(key), Not(HasSubstr("\n"))));
      EXPECT_LT(message.size(), 500U);
    }
  }
}

TEST(ModelConfigTest, RefusesWhatIsNoObject) {
  for (const char* text : {"", "[]", "null", "{\"model_type\": \"phi\"", "\xFF\xFE", "{} {}"}) {
    const auto config = Parse(text);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(Message(config), HasSubstr("config.json: ")) << text;
  }
  EXPECT_EQ(Parse("{}").status().code(), absl::StatusCode::kInvalidArgument);
  const auto missing = ParseModelConfig("/nonexistent/config.json");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing), HasSubstr("/nonexistent/config.json"));
}

}  // namespace
}  // namespace epo
