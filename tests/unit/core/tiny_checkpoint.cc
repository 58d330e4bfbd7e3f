#include "tests/unit/core/tiny_checkpoint.h"

#include <cstring>
#include <fstream>
#include <functional>
#include <random>

namespace epo {
namespace {

using Json = nlohmann::json;

constexpr int kHidden = 8, kIntermediate = 12, kVocab = 520, kLayers = 2;

void WriteFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

std::string RawSafetensors(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string file(sizeof(size), '\0');
  std::memcpy(file.data(), &size, sizeof(size));
  return file + header + data;
}

std::string Safetensors(const StoredTensors& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return RawSafetensors(header.dump(), data);
}

StoredTensor RandomTensor(const std::string& name, const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  std::mt19937 random(static_cast<uint32_t>(std::hash<std::string>()(name)));
  StoredTensor tensor{"F32", shape, std::string(count * sizeof(float), '\0')};
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
    std::memcpy(tensor.bytes.data() + i * sizeof(float), &value, sizeof(float));
  }
  return tensor;
}

Json TinyPhiConfig() {
  return {{"model_type", "phi"},
          {"hidden_size", kHidden},
          {"num_hidden_layers", kLayers},
          {"num_attention_heads", 2},
          {"intermediate_size", kIntermediate},
          {"vocab_size", kVocab},
          {"max_position_embeddings", 16},
          {"hidden_act", "gelu_new"},
          {"partial_rotary_factor", 0.5},
          {"rope_theta", 10000.0},
          {"rope_scaling", nullptr}};
}

StoredTensors TinyPhiTensors() {
  StoredTensors tensors;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name] = RandomTensor(name, shape);
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    add(name + ".weight", {out, in});
    add(name + ".bias", {out});
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {kHidden});
    add(name + ".bias", {kHidden});
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  for (int i = 0; i < kLayers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i);
    norm(layer + ".input_layernorm");
    for (const char* name : {"q_proj", "k_proj", "v_proj", "dense"}) {
      linear(layer + ".self_attn." + name, kHidden, kHidden);
    }
    linear(layer + ".mlp.fc1", kIntermediate, kHidden);
    linear(layer + ".mlp.fc2", kHidden, kIntermediate);
  }
  norm("model.final_layernorm");
  linear("lm_head", kVocab, kHidden);
  return tensors;
}

Json TinyTokenizer() {
  std::ifstream stream(ParityModel("phi-tiny") / "tokenizer.json");
  Json tokenizer = Json::parse(stream);
  const auto added = [](int id, const char* content, bool special) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", special}};
  };
  tokenizer["added_tokens"] = {added(512, "<|endoftext|>", true), added(513, "<|tool|>", false)};
  return tokenizer;
}

void WriteTinyPhi(const std::filesystem::path& dir) {
  WriteFile(dir / "config.json", TinyPhiConfig().dump());
  WriteFile(dir / "tokenizer.json", TinyTokenizer().dump());
  WriteFile(dir / "model.safetensors", Safetensors(TinyPhiTensors()));
}

std::filesystem::path ParityModel(const std::string& name) {
  return std::filesystem::path(EPO_SOURCE_DIR) / "tests/parity" / name;
}

}  // namespace epo
