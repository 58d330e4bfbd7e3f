#include "client/cli/objective_arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "client/cli/objective_text.h"

namespace epo::cli {
namespace {

using ::testing::HasSubstr;

template <class T>
std::string Why(const absl::StatusOr<T>& parsed) {
  return parsed.ok() ? "" : std::string(parsed.status().message());
}

class FilesTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() /
                 ("epo-objective-" + std::to_string(getpid()) + "-" +
                  testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Write(const std::string& name, const std::string& content) {
    std::ofstream(directory_ / name, std::ios::binary) << content;
    return (directory_ / name).string();
  }
  std::string WriteNpy(const std::string& name, const std::string& shape,
                       const std::vector<float>& values) {
    const std::string header =
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }\n";
    return Write(name, std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) +
                           std::string(1, '\0') + header +
                           std::string(reinterpret_cast<const char*>(values.data()),
                                       values.size() * sizeof(float)));
  }

  std::filesystem::path directory_;
};

TEST(ObjectiveArgumentsTest, Neurons) {
  EXPECT_EQ(ParseNeuron("8:1", std::nullopt)->layer(), 8);
  EXPECT_EQ(ParseNeuron("8:1", std::nullopt)->neuron(), 1);
  EXPECT_EQ(ParseNeuron("-1", 3)->neuron(), -1);
  EXPECT_EQ(ParseNeuron("-1", 3)->layer(), 3);
  EXPECT_THAT(Why(ParseNeuron("1", std::nullopt)), HasSubstr("8:1, or --layer"));
  for (const char* bad : {"", ":", "a", "1:2:3", "1:", "1.5", "99999999999"}) {
    EXPECT_THAT(Why(ParseNeuron(bad, 3)), HasSubstr("LAYER:NEURON")) << bad;
  }
}

TEST(ObjectiveArgumentsTest, AttentionsAndTokens) {
  EXPECT_EQ(ParseAttention("5:2:-1")->key(), -1);
  EXPECT_EQ(ParseAttention("5:2:-1")->head(), 2);
  for (const char* bad : {"", "5:2", "5:2:1:0", "a:b:c"}) {
    EXPECT_THAT(Why(ParseAttention(bad)), HasSubstr("LAYER:HEAD:KEY")) << bad;
  }
  EXPECT_EQ(ParseToken(" dog").text(), " dog");
  EXPECT_EQ(ParseToken("id:464").id(), 464);
  EXPECT_EQ(ParseToken("id:x").text(), "id:x");
}

TEST(ObjectiveArgumentsTest, Positions) {
  EXPECT_EQ(ParsePosition("-1")->index(), -1);
  EXPECT_EQ(ParsePosition("3")->frame(), v1::Position::FRAME_UNSPECIFIED);
  EXPECT_EQ(ParsePosition("prompt:0")->frame(), v1::Position::PROMPT);
  EXPECT_TRUE(ParsePosition("max")->has_max());
  EXPECT_FALSE(ParsePosition("max")->max().has_first());
  EXPECT_EQ(ParsePosition("prompt:mean:2:-2")->mean().first(), 2);
  EXPECT_EQ(ParsePosition("prompt:mean:2:-2")->mean().last(), -2);
  for (const char* bad : {"", "prompt:", "first", "max:", "max:1", "mean1:2", "max:1:2:3", "1:2"}) {
    EXPECT_THAT(Why(ParsePosition(bad)), HasSubstr("is no position")) << bad;
  }
}

TEST_F(FilesTest, VectorsOfFiles) {
  const std::string one = WriteNpy("one.npy", "(2,)", {1, 2});
  const std::string two = WriteNpy("two.npy", "(2, 2)", {1, 2, 3, 4});
  const auto placed = ParsePlacedVector(one + "@12:mid");
  ASSERT_TRUE(placed.ok()) << placed.status();
  EXPECT_EQ(placed->place.layer, 12);
  EXPECT_EQ(placed->place.point, v1::POST_ATTENTION);
  EXPECT_EQ(placed->vector.values().size(), 8u);
  float second = 0;
  std::memcpy(&second, ParsePlacedVector(two + ":1@0")->vector.values().data() + 4, 4);
  EXPECT_EQ(second, 4);
  EXPECT_THAT(Why(ParsePlacedVector(two + "@0")), HasSubstr("holds 2 vectors"));
  EXPECT_THAT(Why(ParsePlacedVector(two + ":2@0")), HasSubstr("has no row 2; give 0 to 1"));
  EXPECT_THAT(Why(ParsePlacedVector(one)), HasSubstr("names no layer"));
  EXPECT_THAT(Why(ParsePlacedVector(one + "@12:top")), HasSubstr("12:post"));
  EXPECT_THAT(Why(ParsePlacedVector(one + "@")), HasSubstr("is no layer"));
  EXPECT_THAT(Why(ParsePlacedVector("none.npy@1")), HasSubstr("none.npy: cannot be read"));
  EXPECT_THAT(Why(ParsePlacedVector(Write("bad.npy", "x") + "@1")), HasSubstr("is no .npy file"));
  EXPECT_THAT(Why(ParsePlacedVector("w.safetensors@1")), HasSubstr("epo upload-vector"));
}

TEST_F(FilesTest, VectorsOfTheServer) {
  const std::string name = "v0123456789abcdef0123456789abcdef";
  EXPECT_EQ(ParsePlacedVector(name + "@1:pre")->vector.name(), name);
  EXPECT_FALSE(ParsePlacedVector(name + "@1:pre")->vector.has_row());
  EXPECT_EQ(ParsePlacedVector(name + ":7@1")->vector.row(), 7);
  const auto cosine = ParseCosine(name + ":7@1:post");
  EXPECT_EQ(cosine->vector().row(), 7);
  EXPECT_EQ(cosine->point(), v1::POST_BLOCK);
  EXPECT_EQ(ParseCosine("mail me @ home@3")->text().text(), "mail me @ home");
  EXPECT_EQ(ParseCosine("mail me @ home@3")->layer(), 3);
  EXPECT_THAT(Why(ParseCosine("dogs")), HasSubstr("dogs@12"));
}

TEST_F(FilesTest, ObjectivesOfFiles) {
  const auto read = [&](const std::string& json) {
    return ReadObjectiveFile(Write("o.json", json));
  };
  const auto good = read("{\"terms\": [\n{\"logit\": {\"token\": {\"text\": \" dog\"}}}\n]}");
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->terms(0).logit().token().text(), " dog");
  EXPECT_THAT(Why(read("{\"terms\": [\n\n oops ]}")), HasSubstr("o.json, line 3: is no JSON"));
  const std::string unknown = Why(read("{\"terms\": [\n{\"logits\": {}}]}"));
  EXPECT_THAT(unknown, HasSubstr("o.json, line 2: is no Objective"));
  EXPECT_THAT(unknown, HasSubstr("logits"));
  EXPECT_THAT(Why(read("{\"goal\":\n \"MAXIMISE\"}")), HasSubstr("o.json, line "));
  EXPECT_THAT(Why(read("")), HasSubstr("line 1"));
  EXPECT_THAT(Why(ReadObjectiveFile("none.json")), HasSubstr("none.json: cannot be read"));
  EXPECT_THAT(Why(ReadObjectiveFile(testing::TempDir())), HasSubstr("Is a directory"));
}

TEST(ObjectiveArgumentsTest, ChatTemplates) {
  // SmolLM2's, as its tokenizer_config.json has it.
  const std::string loop =
      "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  const std::string smollm =
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
      "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
      "Face<|im_end|>\n' }}{% endif %}" +
      loop;
  const auto context = ChatContext(smollm);
  ASSERT_TRUE(context.ok()) << context.status();
  EXPECT_EQ(context->prefix().text(),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n<|im_start|>user\n");
  EXPECT_EQ(context->suffix().text(), "<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(ChatContext("{% for message in messages %}" + loop)->prefix().text(),
            "<|im_start|>user\n");
  EXPECT_THAT(Why(ChatContext("")), HasSubstr("has no chat template"));
  for (const std::string& other :
       {std::string("{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"),
        "{{ bos_token }}" + smollm, smollm + "!", "{% for message in messages %}x" + loop}) {
    EXPECT_THAT(Why(ChatContext(other)), HasSubstr("--prefix and --suffix")) << other;
  }
}

TEST(ObjectiveTextTest, IsAFewWords) {
  v1::Objective objective;
  objective.mutable_neuron()->set_layer(8);
  EXPECT_EQ(ObjectiveText(objective), "layer 8 neuron 0");
  objective.set_goal(v1::Objective::MINIMIZE);
  EXPECT_EQ(ObjectiveText(objective), "least layer 8 neuron 0");
  objective.Clear();
  auto& difference = *objective.add_terms()->mutable_logit_difference();
  difference.mutable_token()->set_text(" dog\x1b");
  EXPECT_EQ(ObjectiveText(objective), "logit of \" dog\\x1b\" over all others");
  difference.mutable_other()->set_id(7);
  objective.add_terms()->mutable_direction()->set_layer(3);
  EXPECT_EQ(ObjectiveText(objective), "logit of \" dog\\x1b\" over id 7 + layer 3 direction");
  objective.add_terms()->mutable_attention();
  EXPECT_THAT(ObjectiveText(objective), HasSubstr(" + 1 more"));
}

TEST(ObjectiveTextTest, NamesVectorsAndTheirPlaces) {
  v1::Objective objective;
  auto& direction = *objective.add_terms()->mutable_direction();
  direction.set_layer(3);
  direction.set_point(v1::PRE_BLOCK);
  direction.mutable_vector()->set_name("v0123456789abcdef0123456789abcdef");
  EXPECT_EQ(ObjectiveText(objective), "layer 3 direction v01234567…");
  direction.mutable_vector()->set_row(5);
  direction.set_point(v1::POST_ATTENTION);
  direction.set_standardized(true);
  EXPECT_EQ(ObjectiveText(objective), "layer 3:mid standardised direction v01234567…:5");
  const v1::Vector vector = direction.vector();
  auto& feature = *objective.mutable_terms(0)->mutable_feature();
  feature.set_point(v1::POST_BLOCK);
  *feature.mutable_encoder() = vector;
  EXPECT_EQ(ObjectiveText(objective), "layer 0 feature v01234567…:5");
  feature.set_point(v1::PRE_BLOCK);
  EXPECT_EQ(ObjectiveText(objective), "layer 0:pre feature v01234567…:5");
  auto& cosine = *objective.mutable_terms(0)->mutable_cosine();
  cosine.set_point(v1::POST_BLOCK);
  *cosine.mutable_vector() = vector;
  EXPECT_EQ(ObjectiveText(objective), "layer 0:post cosine with v01234567…:5");
  cosine.mutable_vector()->set_values("1234");
  EXPECT_EQ(ObjectiveText(objective), "layer 0:post cosine with a vector");
  cosine.mutable_text()->set_text("a");
  EXPECT_EQ(ObjectiveText(objective), "layer 0:post cosine with \"a\"");
  *objective.mutable_terms(0)->mutable_output()->mutable_vector() = vector;
  EXPECT_EQ(ObjectiveText(objective), "layer 0 MLP output v01234567…:5");
}

TEST(ObjectiveTextTest, TellsWhatIsNotAsByDefault) {
  v1::Objective objective;
  v1::Term& term = *objective.add_terms();
  term.mutable_neuron()->set_layer(8);
  v1::Position& position = *term.mutable_position();
  const auto at = [&](const v1::Position& where) {
    position = where;
    return ObjectiveText(objective);
  };
  EXPECT_EQ(at({}), "layer 8 neuron 0");
  for (const char* shown : {"3", "max", "mean:2:5", "prompt:0", "prompt:-1", "prompt:max:1:-1"}) {
    EXPECT_EQ(at(*ParsePosition(shown)), std::string("layer 8 neuron 0 at ") + shown);
  }
  // As the server fills it in.
  v1::Position filled;
  filled.set_frame(v1::Position::SEQUENCE);
  filled.set_index(-1);
  EXPECT_EQ(at(filled), "layer 8 neuron 0");
  filled.mutable_max()->set_first(0);
  filled.mutable_max()->set_last(-1);
  EXPECT_EQ(at(filled), "layer 8 neuron 0 at max");
  term.set_weight(-2);
  term.set_constant_scale(0.5);
  EXPECT_EQ(ObjectiveText(objective), "-2 * layer 8 neuron 0 at max / 0.5");
  term.set_weight(1);
  term.set_constant_scale(1);
  objective.set_combination(v1::Objective::SOFT_MIN);
  EXPECT_EQ(ObjectiveText(objective), "layer 8 neuron 0 at max");
  objective.add_terms()->mutable_logit()->mutable_token()->set_id(7);
  objective.set_temperature(1);
  EXPECT_EQ(ObjectiveText(objective), "soft-min of layer 8 neuron 0 at max, logit of id 7");
  objective.set_temperature(0.5);
  objective.set_goal(v1::Objective::MINIMIZE);
  EXPECT_EQ(ObjectiveText(objective),
            "least soft-min at 0.5 of layer 8 neuron 0 at max, logit of id 7");
}

}  // namespace
}  // namespace epo::cli
