#include "server/convert.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "core/model/model.h"

namespace epo {
namespace {

std::vector<std::string> Fields(const FieldViolations& violations) {
  std::vector<std::string> fields;
  for (const FieldViolation& violation : violations) fields.push_back(violation.field);
  return fields;
}

class ConvertTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float32"});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }

  static v1::JobSpec GoodSpec() {
    v1::JobSpec spec;
    spec.mutable_objective()->mutable_neuron()->set_layer(2);
    spec.mutable_objective()->mutable_neuron()->set_neuron(5);
    spec.set_top_k(64);
    return spec;
  }

  FieldViolations Parse(const v1::JobSpec& spec) {
    FieldViolations violations;
    parsed_ = converter_.ParseSpec(spec, "spec", violations);
    return violations;
  }

  static const Model* model_;
  Converter converter_{*model_};
  SearchSpec parsed_;
};

const Model* ConvertTest::model_ = nullptr;

TEST_F(ConvertTest, AbsentFieldsTakeThePublishedDefaults) {
  ASSERT_TRUE(Parse(GoodSpec()).empty());
  ASSERT_EQ(parsed_.objective.terms.size(), 1u);
  EXPECT_EQ(std::get<NeuronTerm>(parsed_.objective.terms[0].kind), (NeuronTerm{2, 5}));
  const v1::JobSpec effective = Converter::EffectiveSpec(GoodSpec(), parsed_);
  EXPECT_EQ(effective.tokens(), 12);
  EXPECT_EQ(effective.population(), 8);
  EXPECT_EQ(effective.children_per_parent(), 32);
  EXPECT_EQ(effective.top_k(), 64);
  EXPECT_EQ(effective.penalty_min(), 0.1);
  EXPECT_EQ(effective.penalty_max(), 10);
  EXPECT_EQ(effective.iterations(), 300);
  EXPECT_EQ(effective.restart_period(), 50);
  EXPECT_EQ(effective.restart_penalty().low(), 2);
  EXPECT_EQ(effective.restart_penalty().high(), 2);
  EXPECT_TRUE(effective.has_seed());
  EXPECT_TRUE(effective.has_allow_special_tokens());
  // What is stored says the same when it is read again.
  ASSERT_TRUE(Parse(effective).empty());
  EXPECT_EQ(Converter::EffectiveSpec(effective, parsed_).SerializeAsString(),
            effective.SerializeAsString());
}

TEST_F(ConvertTest, EveryFieldReachesTheCore) {
  v1::JobSpec spec = GoodSpec();
  spec.set_tokens(3);
  spec.set_population(2);
  spec.set_children_per_parent(7);
  spec.set_top_k(9);
  spec.set_penalty_min(0.25);
  spec.set_penalty_max(4);
  spec.set_iterations(11);
  spec.set_restart_period(0);
  spec.mutable_restart_penalty()->set_low(0.5);
  spec.mutable_restart_penalty()->set_high(6);
  spec.set_seed(std::numeric_limits<uint64_t>::max());
  for (int i = 0; i < 2; ++i) {
    auto* ids = spec.add_initial_prompts()->mutable_ids();
    for (int id : {10, 11, 12 + i}) ids->add_ids(id);
  }
  spec.set_allow_special_tokens(true);
  ASSERT_TRUE(Parse(spec).empty());
  const SearchOptions& options = parsed_.options;
  EXPECT_EQ(options.tokens, 3);
  EXPECT_EQ(options.population, 2);
  EXPECT_EQ(options.children_per_parent, 7);
  EXPECT_EQ(options.top_k, 9);
  EXPECT_EQ(options.penalty_min, 0.25);
  EXPECT_EQ(options.penalty_max, 4);
  EXPECT_EQ(options.iterations, 11);
  EXPECT_EQ(options.restart_period, 0);
  EXPECT_EQ(options.restart_penalty_low, 0.5);
  EXPECT_EQ(options.restart_penalty_high, 6);
  EXPECT_EQ(options.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(options.initial_prompts, (std::vector<Prompt>{{10, 11, 12}, {10, 11, 13}}));
  EXPECT_TRUE(options.allow_special_tokens);
}

TEST_F(ConvertTest, EveryConstraintReachesTheCore) {
  v1::JobSpec spec = GoodSpec();
  spec.set_top_k(1);
  spec.add_initial_prompts()->set_text("right of the copy use");
  v1::Constraints& wire = *spec.mutable_constraints();
  wire.set_ascii_only(true);
  wire.set_decodable_only(true);
  wire.add_banned_ids(9);
  wire.add_banned_ids(8);
  wire.set_banned_token_regex("x");
  wire.add_banned_texts("two words");
  wire.add_banned_texts("YY");
  wire.set_retokenizable(true);
  wire.add_frozen_positions(3);
  wire.add_frozen_positions(1);
  wire.set_max_cross_entropy(4.5);
  ASSERT_TRUE(Parse(spec).empty());
  EXPECT_EQ(parsed_.options.constraints, (Constraints{.ascii_only = true,
                                                      .decodable_only = true,
                                                      .banned_ids = {9, 8},
                                                      .banned_token_regex = "x",
                                                      .banned_texts = {"two words", "YY"},
                                                      .retokenizable = true,
                                                      .frozen_positions = {3, 1},
                                                      .max_cross_entropy = 4.5}));
  EXPECT_EQ(Converter::EffectiveSpec(spec, parsed_).constraints().SerializeAsString(),
            wire.SerializeAsString());
  ASSERT_TRUE(Parse(GoodSpec()).empty());
  EXPECT_EQ(parsed_.options.constraints, Constraints());
  EXPECT_FALSE(Converter::EffectiveSpec(GoodSpec(), parsed_).has_constraints());
}

TEST_F(ConvertTest, TopKIsAtMostWhatTheConstraintsLeave) {
  v1::JobSpec spec = GoodSpec();
  spec.clear_top_k();
  ASSERT_TRUE(Parse(spec).empty());
  EXPECT_EQ(parsed_.options.top_k, 512);
  spec.mutable_constraints()->set_banned_token_regex("[^a-c]");
  ASSERT_TRUE(Parse(spec).empty());
  EXPECT_EQ(parsed_.options.top_k, 5);  // "a", "b", "c", "ac", "ab"
  EXPECT_EQ(Converter::EffectiveSpec(spec, parsed_).top_k(), 5);
  spec.set_top_k(6);
  EXPECT_EQ(Fields(Parse(spec)), (std::vector<std::string>{"spec.top_k"}));
  spec.mutable_constraints()->set_banned_token_regex(".");
  spec.mutable_constraints()->add_banned_ids(198);  // the line break
  EXPECT_EQ(Fields(Parse(spec)), (std::vector<std::string>{"spec.constraints.banned_token_regex"}));
}

TEST_F(ConvertTest, BadConstraintsAreNamedWithTheirPaths) {
  v1::JobSpec spec = GoodSpec();
  spec.set_tokens(2);
  spec.mutable_constraints()->set_banned_token_regex("(");
  spec.mutable_constraints()->add_banned_ids(-5);
  spec.mutable_constraints()->add_banned_texts("");
  spec.mutable_constraints()->add_frozen_positions(2);
  spec.mutable_constraints()->set_max_cross_entropy(0);
  spec.add_initial_prompts()->mutable_ids()->add_ids(3);
  EXPECT_EQ(Fields(Parse(spec)),
            (std::vector<std::string>{
                "spec.initial_prompts[0]", "spec.constraints.banned_token_regex",
                "spec.constraints.banned_ids[0]", "spec.constraints.banned_texts[0]",
                "spec.constraints.max_cross_entropy", "spec.constraints.frozen_positions[0]"}));
}

TEST_F(ConvertTest, PointsSayWhetherTheyRoundTrip) {
  const Prompt ids = model_->tokenizer().Encode("right of the use");
  EXPECT_TRUE(converter_.ToScoredPrompt(ids, {}).round_trips());
  const Tokenizer& tokenizer = model_->tokenizer();
  EXPECT_FALSE(converter_.ToScoredPrompt({tokenizer.Encode("t")[0], tokenizer.Encode("h")[0]}, {})
                   .round_trips());
  // A part of a character.
  EXPECT_FALSE(converter_.ToScoredPrompt({tokenizer.Encode("é")[0]}, {}).round_trips());
}

TEST_F(ConvertTest, AMissingObjectiveIsNamed) {
  v1::JobSpec spec = GoodSpec();
  spec.clear_objective();
  EXPECT_EQ(Fields(Parse(spec)), (std::vector<std::string>{"spec.objective"}));
  spec.mutable_objective();
  EXPECT_EQ(Fields(Parse(spec)), (std::vector<std::string>{"spec.objective"}));
}

TEST_F(ConvertTest, AllBadFieldsAreNamedWithTheirPaths) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_objective()->mutable_neuron()->set_layer(-1);
  spec.set_population(0);
  spec.set_penalty_max(std::numeric_limits<double>::quiet_NaN());
  spec.add_initial_prompts()->set_text("");
  EXPECT_EQ(Fields(Parse(spec)),
            (std::vector<std::string>{"spec.initial_prompts[0]", "spec.objective.neuron.layer",
                                      "spec.population", "spec.penalty_max"}));
}

TEST_F(ConvertTest, TextIsTokenizedAndGivesTheLength) {
  v1::JobSpec spec = GoodSpec();
  const std::string text = "hello there";
  spec.add_initial_prompts()->set_text(text);
  ASSERT_TRUE(Parse(spec).empty());
  const Prompt ids = model_->tokenizer().Encode(text);
  ASSERT_GT(ids.size(), 1u);
  EXPECT_EQ(parsed_.options.initial_prompts, std::vector<Prompt>{ids});
  EXPECT_EQ(parsed_.options.tokens, static_cast<int>(ids.size()));
  EXPECT_EQ(Converter::EffectiveSpec(spec, parsed_).initial_prompts(0).text(), text);

  spec.set_tokens(static_cast<int>(ids.size()) + 1);
  const FieldViolations violations = Parse(spec);
  ASSERT_EQ(Fields(violations), (std::vector<std::string>{"spec.initial_prompts[0]"}));
  EXPECT_NE(violations[0].description.find("tokens is " + std::to_string(ids.size() + 1)),
            std::string::npos);
}

TEST_F(ConvertTest, OneTokenPromptsHaveNoCrossEntropy) {
  const auto one = converter_.ToScoredPrompt({7}, {.target = 1, .cross_entropy = 0}, false);
  EXPECT_FALSE(one.has_cross_entropy());
  EXPECT_FALSE(HasCrossEntropy({}, 1));
  EXPECT_TRUE(HasCrossEntropy({}, 2));
  EXPECT_TRUE(HasCrossEntropy({.contexts = {{.prefix = {1}}}}, 1));
  EXPECT_FALSE(HasCrossEntropy({.contexts = {{.suffix = {1}}}}, 1));
  EXPECT_TRUE(HasCrossEntropy({.contexts = {{.suffix = {1}}}, .fluency_over_suffix = true}, 1));
  const auto two = converter_.ToScoredPrompt({7, 8}, {.target = 1, .cross_entropy = 0});
  EXPECT_TRUE(two.has_cross_entropy());
  EXPECT_EQ(two.text(), model_->tokenizer().Decode({7, 8}));
}

TEST_F(ConvertTest, IterationsComeBackAsTheyWent) {
  const Iteration iteration{.index = 4,
                            .ids = {{1, 2}, {3, 4}, {5, 6}},
                            .scores = {{1, 2}, {3, 4}, {5, 6}},
                            .keep = {2, 0}};
  const v1::Iteration wire = Converter::ToIteration(iteration);
  EXPECT_EQ(wire.index(), 4);
  EXPECT_EQ(wire.keep(0), 2);
  const auto back = Converter::FromIteration(wire);
  ASSERT_EQ(back.size(), 3u);
  EXPECT_EQ(back[1].ids, (Prompt{3, 4}));
  EXPECT_EQ(back[1].score, (Score{3, 4}));
}

}  // namespace
}  // namespace epo
