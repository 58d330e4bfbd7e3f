#include "core/objective/objective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <climits>
#include <limits>
#include <map>
#include <string>

#include "core/objective/validate.h"

namespace epo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

ModelConfig Config() {
  ModelConfig config;
  config.layers = 3;
  config.heads = 4;
  config.hidden_size = 8;
  config.intermediate_size = 160;
  config.vocab_size = 50;
  config.context_length = 20;
  return config;
}

std::map<std::string, std::string> Check(const Objective& objective,
                                         std::optional<int> tokens = 5) {
  std::map<std::string, std::string> found;
  for (const FieldViolation& violation : ValidateObjective(objective, Config(), tokens)) {
    EXPECT_TRUE(found.emplace(violation.field, violation.description).second) << violation.field;
  }
  return found;
}

VectorValues Values(std::vector<float> values) {
  return std::make_shared<const std::vector<float>>(std::move(values));
}

VectorValues Good() { return Values({1, 0, 0, 0, -2, 0, 0, 0}); }

template <class Kind>
Objective Of(Kind kind, Position position = {}) {
  Objective objective;
  objective.terms.push_back({.kind = std::move(kind), .position = position});
  return objective;
}

Position At(int index, Position::Frame frame = Position::Frame::kSequence) {
  return {.frame = frame, .reduce = Position::Reduce::kOne, .first = index, .last = index};
}

Position Over(int first, int last, Position::Reduce reduce = Position::Reduce::kMax) {
  return {.reduce = reduce, .first = first, .last = last};
}

TEST(ObjectiveTest, TakesWhatAModelCanRead) {
  EXPECT_THAT(Check(NeuronObjective(0, 0)), IsEmpty());
  EXPECT_THAT(Check(NeuronObjective(2, 159), std::nullopt), IsEmpty());
  Objective all;
  all.terms = {
      {.kind = NeuronTerm{2, 159}, .position = At(4)},
      {.kind = DirectionTerm{.layer = 1, .vector = Good(), .standardise = true}},
      {.kind = FeatureTerm{.encoder = Good(), .decoder_bias = Values(std::vector<float>(8))}},
      {.kind = AttentionTerm{.layer = 2, .head = 3, .key = 0}, .position = Over(0, -1)},
      {.kind = OutputTerm{.head = 3, .vector = Good()}, .weight = -2, .scale = std::nullopt},
      {.kind = OutputTerm{.vector = Good()}, .weight = 0},
      {.kind = LogitTerm{49}},
      {.kind = LogitDifferenceTerm{.token = 1, .other = 2}},
      {.kind = LogitDifferenceTerm{.token = 1}},
      {.kind = ContinuationTerm{{1, 2, 3}}},
      {.kind = CosineTerm{.vector = Good()}},
      {.kind = CosineTerm{.text = {1, 2}}},
  };
  EXPECT_THAT(Check(all), IsEmpty());
  all.contexts = {{.prefix = {1, 2}}, {.suffix = {3}}};
  all.combine = Objective::Combine::kSoftMin;
  all.temperature = 0.5;
  EXPECT_THAT(Check(all), IsEmpty());
}

TEST(ObjectiveTest, NamesEachIndexOutOfRange) {
  for (const int layer : {-1, 3, INT_MIN, INT_MAX}) {
    for (const auto& [field, objective] : std::map<std::string, Objective>{
             {"neuron", Of(NeuronTerm{layer, 0})},
             {"direction", Of(DirectionTerm{.layer = layer, .vector = Good()})},
             {"feature", Of(FeatureTerm{.layer = layer, .encoder = Good()})},
             {"attention", Of(AttentionTerm{.layer = layer})},
             {"output", Of(OutputTerm{.layer = layer, .vector = Good()})},
             {"cosine", Of(CosineTerm{.layer = layer, .vector = Good()})}}) {
      EXPECT_THAT(Check(objective),
                  ElementsAre(Pair("terms[0]." + field + ".layer",
                                   "is " + std::to_string(layer) + ", but must be from 0 to 2")));
    }
  }
  for (const int index : {-1, 160, INT_MIN, INT_MAX}) {
    EXPECT_THAT(Check(Of(NeuronTerm{2, index})),
                ElementsAre(Pair("terms[0].neuron.neuron",
                                 "is " + std::to_string(index) + ", but must be from 0 to 159")));
  }
  for (const int head : {-1, 4}) {
    EXPECT_THAT(Check(Of(AttentionTerm{.head = head})),
                ElementsAre(Pair("terms[0].attention.head", HasSubstr("from 0 to 3"))));
    EXPECT_THAT(Check(Of(OutputTerm{.head = head, .vector = Good()})),
                ElementsAre(Pair("terms[0].output.head", HasSubstr("from 0 to 3"))));
  }
  for (const int token : {-1, 50}) {
    EXPECT_THAT(Check(Of(LogitTerm{token})),
                ElementsAre(Pair("terms[0].logit.token", HasSubstr("from 0 to 49"))));
    EXPECT_THAT(Check(Of(LogitDifferenceTerm{token, 1})),
                ElementsAre(Pair("terms[0].logit_difference.token", HasSubstr("0 to 49"))));
    EXPECT_THAT(Check(Of(LogitDifferenceTerm{1, token})),
                ElementsAre(Pair("terms[0].logit_difference.other", HasSubstr("0 to 49"))));
    EXPECT_THAT(
        Check(Of(ContinuationTerm{{1, token}})),
        ElementsAre(Pair("terms[0].continuation.text", HasSubstr("at position 1 is not in"))));
    EXPECT_THAT(Check(Of(CosineTerm{.text = {token}})),
                ElementsAre(Pair("terms[0].cosine.text", HasSubstr("at position 0 is not in"))));
  }
  EXPECT_THAT(Check(Of(LogitDifferenceTerm{7, 7})),
              ElementsAre(Pair("terms[0].logit_difference.other", HasSubstr("always 0"))));
}

TEST(ObjectiveTest, NamesEachBadVector) {
  for (const auto& [values, why] : std::map<std::vector<float>, std::string>{
           {{}, "has 0 numbers, but the model's hidden size is 8"},
           {std::vector<float>(7, 1), "has 7 numbers"},
           {std::vector<float>(8, 0), "is all 0"},
           {{1, 1, 1, 1, 1, 1, 1, kInf}, "inf at index 7"}}) {
    const VectorValues vector = Values(values);
    for (const auto& [field, objective] :
         std::map<std::string, Objective>{{"direction.vector", Of(DirectionTerm{.vector = vector})},
                                          {"feature.encoder", Of(FeatureTerm{.encoder = vector})},
                                          {"output.vector", Of(OutputTerm{.vector = vector})},
                                          {"cosine.vector", Of(CosineTerm{.vector = vector})}}) {
      EXPECT_THAT(Check(objective), ElementsAre(Pair("terms[0]." + field, HasSubstr(why))));
    }
  }
  EXPECT_THAT(Check(Of(DirectionTerm{.vector = Values({kNan, 1, 1, 1, 1, 1, 1, 1})})),
              ElementsAre(Pair("terms[0].direction.vector", HasSubstr("nan at index 0"))));
  EXPECT_THAT(Check(Of(DirectionTerm{})),
              ElementsAre(Pair("terms[0].direction.vector", "is required")));
  EXPECT_THAT(
      Check(Of(FeatureTerm{.encoder = Good(), .decoder_bias = Values(std::vector<float>(3))})),
      ElementsAre(Pair("terms[0].feature.decoder_bias", HasSubstr("has 3 numbers"))));
}

TEST(ObjectiveTest, NamesEachBadNumber) {
  EXPECT_THAT(Check(Of(FeatureTerm{.encoder = Good(), .bias = kNan, .threshold = kInf})),
              ElementsAre(Pair("terms[0].feature.bias", HasSubstr("nan")),
                          Pair("terms[0].feature.threshold", HasSubstr("inf"))));
  for (const double weight : {double{kNan}, double{kInf}, 1e300}) {
    Objective objective = NeuronObjective(0, 0);
    objective.terms[0].weight = weight;
    EXPECT_THAT(Check(objective), ElementsAre(Pair("terms[0].weight", HasSubstr("finite"))));
  }
  for (const double scale : {0.0, -1.0, double{kNan}, double{kInf}, 1e-300}) {
    Objective objective = NeuronObjective(0, 0);
    objective.terms[0].scale = scale;
    EXPECT_THAT(Check(objective),
                ElementsAre(Pair("terms[0].constant_scale", HasSubstr("above 0"))));
  }
  for (const double temperature : {0.0, -1.0, double{kNan}, double{kInf}}) {
    Objective objective = NeuronObjective(0, 0);
    objective.temperature = temperature;
    EXPECT_THAT(Check(objective), ElementsAre(Pair("temperature", HasSubstr("above 0"))));
  }
}

TEST(ObjectiveTest, BoundsTermsAndContexts) {
  EXPECT_THAT(Check({}), ElementsAre(Pair("terms", HasSubstr("is required"))));
  Objective objective = NeuronObjective(0, 0);
  objective.terms.resize(64, objective.terms[0]);
  objective.contexts.resize(64);
  EXPECT_THAT(Check(objective), IsEmpty());
  objective.terms.resize(65, objective.terms[0]);
  objective.contexts.resize(65);
  EXPECT_THAT(Check(objective),
              ElementsAre(Pair("contexts", "has 65 entries, but may have at most 64"),
                          Pair("terms", "has 65 entries, but may have at most 64")));
  Objective nothing = NeuronObjective(0, 0);
  nothing.terms[0].weight = 0;
  EXPECT_THAT(Check(nothing), ElementsAre(Pair("terms", HasSubstr("weights of 0"))));
}

TEST(ObjectiveTest, PositionsMustBeInTheFrame) {
  for (const int index : {0, 4, -1, -5}) {
    EXPECT_THAT(Check(Of(LogitTerm{1}, At(index))), IsEmpty()) << index;
  }
  for (const int index : {5, -6, INT_MIN, INT_MAX}) {
    EXPECT_THAT(Check(Of(LogitTerm{1}, At(index))),
                ElementsAre(Pair("terms[0].position.index",
                                 "is " + std::to_string(index) +
                                     ", but the sequence has 5 tokens; give -5 to 4")));
    // Of prompts of any length nothing is known.
    EXPECT_THAT(Check(Of(LogitTerm{1}, At(index)), std::nullopt), IsEmpty());
  }
  EXPECT_THAT(Check(Of(LogitTerm{1}, Over(-5, -1))), IsEmpty());
  EXPECT_THAT(Check(Of(LogitTerm{1}, Over(2, -3))), IsEmpty());
  EXPECT_THAT(Check(Of(LogitTerm{1}, Over(3, -3))),
              ElementsAre(Pair("terms[0].position.max", HasSubstr("from 3 to -3"))));
  EXPECT_THAT(Check(Of(LogitTerm{1}, Over(3, 2, Position::Reduce::kMean)), std::nullopt),
              ElementsAre(Pair("terms[0].position.mean", HasSubstr("from 3 to 2"))));
  EXPECT_THAT(Check(Of(LogitTerm{1}, Over(-6, 5, Position::Reduce::kMean))),
              ElementsAre(Pair("terms[0].position.mean.first", HasSubstr("is -6")),
                          Pair("terms[0].position.mean.last", HasSubstr("is 5"))));
}

TEST(ObjectiveTest, PositionsMustBeInEveryContext) {
  Objective objective = Of(LogitTerm{1}, At(7));
  objective.contexts = {{.prefix = {1, 2}, .suffix = {3}}, {.prefix = {1, 2}}};
  EXPECT_THAT(Check(objective), ElementsAre(Pair("terms[0].position.index",
                                                 HasSubstr("sequence of contexts[1] has 7"))));
  objective.terms[0].position = At(4, Position::Frame::kPrompt);
  EXPECT_THAT(Check(objective), IsEmpty());
  objective.terms[0].position = At(5, Position::Frame::kPrompt);
  EXPECT_THAT(Check(objective),
              ElementsAre(Pair("terms[0].position.index", HasSubstr("the prompt has 5 tokens"))));
}

TEST(ObjectiveTest, AFixedPrefixAloneTellsNothing) {
  Objective objective = Of(LogitTerm{1}, At(1));
  objective.contexts = {{.prefix = {1, 2}}};
  const auto constant =
      ElementsAre(Pair("terms[0].position", HasSubstr("only the first 2 tokens of the sequence")));
  EXPECT_THAT(Check(objective), constant);
  EXPECT_THAT(Check(objective, std::nullopt), constant);
  objective.terms[0].position = At(-6);
  EXPECT_THAT(Check(objective), constant);
  objective.terms[0].position = Over(0, 1);
  EXPECT_THAT(Check(objective), constant);
  for (const Position& good : {At(2), At(-5), Over(0, 2), At(0, Position::Frame::kPrompt)}) {
    objective.terms[0].position = good;
    EXPECT_THAT(Check(objective), IsEmpty());
  }
}

TEST(ObjectiveTest, AHeadAttendsToNoLaterToken) {
  const auto check = [](int key, const Position& position) {
    return Check(Of(AttentionTerm{.key = key}, position));
  };
  EXPECT_THAT(check(0, At(0)), IsEmpty());
  EXPECT_THAT(check(4, At(-1)), IsEmpty());
  EXPECT_THAT(check(1, At(0)),
              ElementsAre(Pair("terms[0].attention.key", HasSubstr("after the query at token 0"))));
  EXPECT_THAT(check(-1, Over(3, 4)),
              ElementsAre(Pair("terms[0].attention.key", HasSubstr("after the query at token 3"))));
  EXPECT_THAT(check(5, At(-1)),
              ElementsAre(Pair("terms[0].attention.key", HasSubstr("give -5 to 4"))));
  // A key within the fixed prefix is what many ask about.
  Objective objective = Of(AttentionTerm{.key = 0});
  objective.contexts = {{.prefix = {1}}};
  EXPECT_THAT(Check(objective), IsEmpty());
}

TEST(ObjectiveTest, AContinuationFollowsTheSequence) {
  EXPECT_THAT(Check(Of(ContinuationTerm{{1}}, At(0))),
              ElementsAre(Pair("terms[0].position", HasSubstr("follows the whole sequence"))));
  EXPECT_THAT(Check(Of(ContinuationTerm{})),
              ElementsAre(Pair("terms[0].continuation.text", HasSubstr("is empty"))));
}

TEST(ObjectiveTest, ACosineNeedsOneOtherSide) {
  EXPECT_THAT(Check(Of(CosineTerm{})), ElementsAre(Pair("terms[0].cosine", HasSubstr("needs"))));
  EXPECT_THAT(Check(Of(CosineTerm{.vector = Good(), .text = {1}})),
              ElementsAre(Pair("terms[0].cosine", HasSubstr("give one of them"))));
  EXPECT_THAT(Check(Of(CosineTerm{.text = Prompt(20, 1)})), IsEmpty());
  EXPECT_THAT(Check(Of(CosineTerm{.text = Prompt(21, 1)})),
              ElementsAre(Pair("terms[0].cosine.text", HasSubstr("context is 20 tokens"))));
}

TEST(ObjectiveTest, EverythingMustFitTheModelsContext) {
  Objective objective = NeuronObjective(0, 0);
  objective.contexts = {{.prefix = Prompt(10, 1), .suffix = Prompt(5, 1)}};
  EXPECT_THAT(Check(objective), IsEmpty());
  objective.contexts.push_back({.prefix = Prompt(10, 1), .suffix = Prompt(6, 1)});
  EXPECT_THAT(Check(objective),
              ElementsAre(Pair("contexts[1]", HasSubstr("leaves no room for a prompt of 5 tokens: "
                                                        "10 tokens before it, 6 after it"))));
  EXPECT_THAT(Check(objective, std::nullopt), IsEmpty());
  objective.contexts.pop_back();
  objective.terms.push_back({.kind = ContinuationTerm{{1}}});
  EXPECT_THAT(Check(objective),
              ElementsAre(Pair("contexts[0]", HasSubstr("a continuation of 1,"))));

  EXPECT_THAT(Check(Of(ContinuationTerm{Prompt(15, 1)})), IsEmpty());
  EXPECT_THAT(Check(Of(ContinuationTerm{Prompt(16, 1)})),
              ElementsAre(Pair("terms[0].continuation.text", HasSubstr("leaves no room"))));
  EXPECT_THAT(Check(Of(ContinuationTerm{Prompt(20, 1)}), std::nullopt),
              ElementsAre(Pair("terms[0].continuation.text", HasSubstr("leaves no room"))));

  Objective unknown = NeuronObjective(0, 0);
  unknown.contexts = {{.prefix = {1, 50}}, {.suffix = {-1}}};
  EXPECT_THAT(Check(unknown), ElementsAre(Pair("contexts[0].prefix", HasSubstr("id 50")),
                                          Pair("contexts[1].suffix", HasSubstr("id -1"))));
}

}  // namespace
}  // namespace epo
