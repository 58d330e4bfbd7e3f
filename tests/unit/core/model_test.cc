#include "core/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "core/model/chat_template.h"
#include "nlohmann/json.hpp"
#include "tests/unit/core/temp_dir.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using Json = nlohmann::json;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class ModelTest : public ::testing::Test {
 protected:
  ModelTest() { WriteTinyPhi(dir_.path()); }

  void WriteTensors(const StoredTensors& tensors) const {
    dir_.Write("model.safetensors", Safetensors(tensors));
  }

  absl::Status Load(const std::string& device = "cpu", const std::string& dtype = "float32") const {
    return Model::Load(dir_.path(), {device, dtype}).status();
  }

  TempDir dir_;
};

TEST_F(ModelTest, Loads) {
  const auto model = Model::Load(dir_.path(), {"cpu", "float32"});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->name(), dir_.path().filename());
  EXPECT_EQ((*model)->device(), "cpu");
  EXPECT_EQ((*model)->dtype(), "float32");
  EXPECT_EQ((*model)->config().layers, 2);
  EXPECT_EQ((*model)->tokenizer().vocab_size(), 514);
  EXPECT_THAT((*model)->fingerprint(), MatchesRegex("[0-9a-f]{32}"));
  // With a separator at the end the directory has the same name.
  EXPECT_EQ((*Model::Load(dir_.path() / "", {"cpu", "float32"}))->name(), (*model)->name());
}

TEST_F(ModelTest, FingerprintIsOfConfigAndHeaders) {
  const auto fingerprint = [&](const char* dtype) {
    return (*Model::Load(dir_.path(), {"cpu", dtype}))->fingerprint();
  };
  const std::string first = fingerprint("float32");
  for (const char* dtype : {"float64", "bfloat16", "float16", "auto"}) {
    EXPECT_EQ(fingerprint(dtype), first) << dtype;
  }
  StoredTensors tensors = TinyPhiTensors();
  StoredTensor& bias = tensors["lm_head.bias"];
  bias.dtype = "F16";
  bias.bytes.resize(bias.bytes.size() / 2);
  WriteTensors(tensors);
  const std::string other_weights = fingerprint("float32");
  EXPECT_NE(other_weights, first);
  WriteTensors(TinyPhiTensors());
  EXPECT_EQ(fingerprint("float32"), first);
  Json config = TinyPhiConfig();
  config["rope_theta"] = 20000.0;
  dir_.Write("config.json", config.dump());
  EXPECT_NE(fingerprint("float32"), first);
}

TEST_F(ModelTest, NamesMissingFiles) {
  const absl::Status no_directory = Model::Load("/nonexistent/phi", {"cpu", "float32"}).status();
  EXPECT_EQ(no_directory.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(no_directory), HasSubstr("/nonexistent/phi"));
  for (const char* file : {"model.safetensors", "tokenizer.json", "config.json"}) {
    std::filesystem::remove(dir_.path() / file);
    EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(Message(Load()), HasSubstr(file));
  }
}

TEST_F(ModelTest, NamesMissingTensors) {
  for (const auto& [name, tensor] : TinyPhiTensors()) {
    StoredTensors tensors = TinyPhiTensors();
    tensors.erase(name);
    WriteTensors(tensors);
    EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound) << name;
    EXPECT_THAT(Message(Load()),
                AllOf(HasSubstr("model.safetensors"), HasSubstr("\"" + name + "\"")));
  }
}

TEST_F(ModelTest, NamesTensorsOfAnotherShape) {
  for (const auto& [name, tensor] : TinyPhiTensors()) {
    StoredTensors tensors = TinyPhiTensors();
    // Transposed, or one row more: the bytes are consistent, the shape is not config.json's.
    std::vector<int64_t> shape(tensor.shape.rbegin(), tensor.shape.rend());
    if (shape == tensor.shape) ++shape[0];
    tensors[name] = RandomTensor(name, shape);
    WriteTensors(tensors);
    EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Message(Load()),
                AllOf(HasSubstr("model.safetensors"), HasSubstr("\"" + name + "\""),
                      HasSubstr("shape"), HasSubstr("config.json")));
  }
}

TEST_F(ModelTest, NamesTensorsOfAnotherDType) {
  for (const char* dtype : {"I32", "U32"}) {
    StoredTensors tensors = TinyPhiTensors();
    tensors["model.layers.1.mlp.fc1.bias"].dtype = dtype;
    WriteTensors(tensors);
    EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(Load()),
                AllOf(HasSubstr("model.safetensors"), HasSubstr("\"model.layers.1.mlp.fc1.bias\""),
                      HasSubstr(dtype)));
  }
}

// What config.json says is compared with the weights, and its sizes alone allocate nothing.
TEST_F(ModelTest, RefusesConfigThatTheWeightsContradict) {
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, int64_t>>{{"vocab_size", 521},
                                                    {"vocab_size", INT32_MAX},
                                                    {"intermediate_size", INT32_MAX},
                                                    {"num_hidden_layers", 3},
                                                    {"num_hidden_layers", INT32_MAX},
                                                    {"hidden_size", 16},
                                                    {"num_key_value_heads", 1}}) {
    Json config = TinyPhiConfig();
    config[key] = value;
    dir_.Write("config.json", config.dump());
    EXPECT_FALSE(Load().ok()) << key << ' ' << value;
    EXPECT_THAT(Message(Load()), ContainsRegex("model.safetensors: tensor \"[a-z0-9_.]+\""));
  }
}

TEST_F(ModelTest, RefusesAContextBeyondReason) {
  Json config = TinyPhiConfig();
  config["max_position_embeddings"] = int64_t{1} << 30;
  dir_.Write("config.json", config.dump());
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(Load()),
              AllOf(HasSubstr("config.json"), HasSubstr("max_position_embeddings")));
}

TEST_F(ModelTest, ReadsTensorsThatAreNotAligned) {
  // One stray byte before the weights shifts every one of them.
  StoredTensors tensors = TinyPhiTensors();
  tensors["a"] = {"U8", {1}, "x"};
  WriteTensors(tensors);
  EXPECT_TRUE(Load().ok()) << Load();
}

TEST_F(ModelTest, NamesUnknownDevicesAndDTypes) {
  for (const char* device :
       {"gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cpu:0", "cuda:99999999999"}) {
    EXPECT_EQ(Load(device).code(), absl::StatusCode::kInvalidArgument) << device;
    EXPECT_THAT(Message(Load(device)), HasSubstr(std::string("'") + device + "'"));
  }
  for (const char* dtype : {"float", "fp16", "int8", "", "Float32"}) {
    EXPECT_EQ(Load("cpu", dtype).code(), absl::StatusCode::kInvalidArgument) << dtype;
    EXPECT_THAT(Message(Load("cpu", dtype)), HasSubstr(std::string("'") + dtype + "'"));
  }
  EXPECT_EQ(Load("cuda:99").code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(Load("cuda:99")), HasSubstr("cuda:99"));
}

TEST_F(ModelTest, ErrorsAreOneLine) {
  dir_.Write("config.json", "{\n\n");
  EXPECT_THAT(Message(Load()), Not(HasSubstr("\n")));
  WriteTinyPhi(dir_.path());
  dir_.Write("model.safetensors", "short");
  EXPECT_THAT(Message(Load()), Not(HasSubstr("\n")));
}

TEST(ChatTemplateTest, IsWhereTransformersLooks) {
  const TempDir dir;
  EXPECT_EQ(*ReadChatTemplate(dir.path()), "");
  dir.Write("tokenizer_config.json", "{}");
  EXPECT_EQ(*ReadChatTemplate(dir.path()), "");
  dir.Write("tokenizer_config.json", R"({"chat_template": "{{ one }}"})");
  EXPECT_EQ(*ReadChatTemplate(dir.path()), "{{ one }}");
  dir.Write("tokenizer_config.json",
            R"({"chat_template": [{"name": "tools", "template": "a"},
                                  {"name": "default", "template": "b"}]})");
  EXPECT_EQ(*ReadChatTemplate(dir.path()), "b");
  for (const char* bad : {"[", "[]", R"({"chat_template": 3})", R"({"chat_template": ["a"]})"}) {
    dir.Write("tokenizer_config.json", bad);
    EXPECT_THAT(std::string(ReadChatTemplate(dir.path()).status().message()),
                HasSubstr("tokenizer_config.json: "))
        << bad;
  }
  dir.Write("chat_template.jinja", "{{ two }}");
  EXPECT_EQ(*ReadChatTemplate(dir.path()), "{{ two }}");
}

}  // namespace
}  // namespace epo
