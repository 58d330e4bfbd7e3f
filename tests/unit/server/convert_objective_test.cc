#include "server/convert_objective.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/model/model.h"
#include "server/convert.h"

namespace epo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

using Found = std::map<std::string, std::string>;

// One matrix, "vmatrix", of two rows.
class Matrix final : public VectorSource {
 public:
  explicit Matrix(int64_t width) : width_(width) {}

  absl::StatusOr<VectorValues> Row(const std::string& name, int row) const override {
    if (name != "vmatrix") return absl::NotFoundError("names no vector here");
    if (row < 0 || row > 1) return absl::OutOfRangeError("is no row here");
    return std::make_shared<const std::vector<float>>(width_, static_cast<float>(row + 1));
  }

 private:
  const int64_t width_;
};

class ConvertObjectiveTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float32"});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }

  static int64_t hidden() { return model_->config().hidden_size; }

  // `count` times the float 1, as base64.
  static std::string Ones(int64_t count) {
    std::string bytes;
    for (int64_t i = 0; i < count; ++i) bytes += std::string("\x00\x00\x80\x3f", 4);
    return absl::Base64Escape(bytes);
  }
  static std::string Vector() { return absl::StrCat(R"({"values": ")", Ones(hidden()), "\"}"); }

  // A spec of an objective and further fields, as JSON.
  static v1::JobSpec Spec(const std::string& objective, const std::string& more = "") {
    v1::JobSpec spec;
    const std::string json =
        absl::StrCat(R"({"objective": )", objective, R"(, "topK": 16, "tokens": 6)", more, "}");
    const auto status = google::protobuf::util::JsonStringToMessage(json, &spec);
    EXPECT_TRUE(status.ok()) << status.message() << json;
    return spec;
  }
  static std::string Terms(const std::string& term) {
    return absl::StrCat(R"({"terms": [)", term, "]}");
  }

  Found Parse(const v1::JobSpec& spec) {
    FieldViolations violations;
    parsed_ = converter_.ParseSpec(spec, "spec", violations);
    Found found;
    for (const FieldViolation& violation : violations) {
      EXPECT_TRUE(found.emplace(violation.field, violation.description).second) << violation.field;
    }
    return found;
  }
  Found ParseTerm(const std::string& term) { return Parse(Spec(Terms(term))); }

  template <class Kind>
  const Kind& Only() {
    return std::get<Kind>(parsed_.objective.terms.at(0).kind);
  }

  static const Model* model_;
  Matrix vectors_{hidden()};
  Converter converter_{*model_, &vectors_};
  SearchSpec parsed_;
};

const Model* ConvertObjectiveTest::model_ = nullptr;

TEST_F(ConvertObjectiveTest, EveryKindReachesTheCore) {
  const std::string vector = Vector();
  ASSERT_THAT(ParseTerm(R"({"neuron": {"layer": 1, "neuron": 2}, "weight": -0.5})"), IsEmpty());
  EXPECT_EQ(Only<NeuronTerm>(), (NeuronTerm{1, 2}));
  EXPECT_EQ(parsed_.objective.terms[0].weight, -0.5);
  EXPECT_EQ(parsed_.objective.terms[0].scale, 1);
  EXPECT_EQ(parsed_.objective.terms[0].position, Position());

  ASSERT_THAT(ParseTerm(absl::StrCat(R"({"direction": {"layer": 1, "point": "POST_BLOCK", )",
                                     R"("standardized": true, "vector": )", vector,
                                     R"(}, "constantScale": 3})")),
              IsEmpty());
  EXPECT_EQ(Only<DirectionTerm>().point, ResidualPoint::kPostBlock);
  EXPECT_TRUE(Only<DirectionTerm>().standardise);
  EXPECT_EQ(*Only<DirectionTerm>().vector, std::vector<float>(hidden(), 1));
  EXPECT_EQ(parsed_.objective.terms[0].scale, 3);

  ASSERT_THAT(ParseTerm(absl::StrCat(R"({"feature": {"layer": 1, "encoder": )", vector,
                                     R"(, "decoderBias": )", vector,
                                     R"(, "bias": 2, "activation": "JUMP_RELU", )",
                                     R"("threshold": 0.25}, "measuredScale": true})")),
              IsEmpty());
  EXPECT_EQ(Only<FeatureTerm>().point, ResidualPoint::kPostBlock);
  EXPECT_EQ(Only<FeatureTerm>().activation, FeatureTerm::Activation::kJumpRelu);
  EXPECT_EQ(Only<FeatureTerm>().threshold, 0.25);
  EXPECT_EQ(Only<FeatureTerm>().bias, 2);
  EXPECT_NE(Only<FeatureTerm>().decoder_bias, nullptr);
  EXPECT_FALSE(parsed_.objective.terms[0].scale.has_value());

  ASSERT_THAT(ParseTerm(R"({"attention": {"layer": 1, "head": 1, "key": -3},
                            "position": {"frame": "PROMPT", "index": -2}})"),
              IsEmpty());
  EXPECT_EQ(Only<AttentionTerm>().head, 1);
  EXPECT_EQ(Only<AttentionTerm>().key, -3);
  EXPECT_EQ(parsed_.objective.terms[0].position,
            (Position{.frame = Position::Frame::kPrompt, .first = -2, .last = -2}));

  ASSERT_THAT(ParseTerm(absl::StrCat(R"({"output": {"layer": 1, "vector": )", vector,
                                     R"(}, "position": {"max": {"first": 2}}})")),
              IsEmpty());
  EXPECT_FALSE(Only<OutputTerm>().head.has_value());
  EXPECT_EQ(parsed_.objective.terms[0].position,
            (Position{.reduce = Position::Reduce::kMax, .first = 2, .last = -1}));
  ASSERT_THAT(ParseTerm(absl::StrCat(R"({"output": {"head": 0, "vector": )", vector,
                                     R"(}, "position": {"mean": {"last": 3}}})")),
              IsEmpty());
  EXPECT_EQ(Only<OutputTerm>().head, 0);
  EXPECT_EQ(parsed_.objective.terms[0].position,
            (Position{.reduce = Position::Reduce::kMean, .first = 0, .last = 3}));

  ASSERT_THAT(ParseTerm(R"({"logit": {"token": {"id": 7}}})"), IsEmpty());
  EXPECT_EQ(Only<LogitTerm>().token, 7);
  ASSERT_THAT(ParseTerm(R"({"logitDifference": {"token": {"text": "a"}}})"), IsEmpty());
  EXPECT_EQ(Only<LogitDifferenceTerm>().token, model_->tokenizer().Encode("a").at(0));
  EXPECT_FALSE(Only<LogitDifferenceTerm>().other.has_value());
  ASSERT_THAT(ParseTerm(R"({"logitDifference": {"token": {"id": 1}, "other": {"id": 2}}})"),
              IsEmpty());
  EXPECT_EQ(Only<LogitDifferenceTerm>().other, 2);
  ASSERT_THAT(ParseTerm(R"({"continuation": {"text": {"text": "hello there"}}})"), IsEmpty());
  EXPECT_EQ(Only<ContinuationTerm>().tokens, model_->tokenizer().Encode("hello there"));
  ASSERT_THAT(ParseTerm(R"({"cosine": {"layer": 1, "text": {"text": "hello"}}})"), IsEmpty());
  EXPECT_EQ(Only<CosineTerm>().text, model_->tokenizer().Encode("hello"));
  EXPECT_EQ(Only<CosineTerm>().point, ResidualPoint::kPreBlock);
}

TEST_F(ConvertObjectiveTest, ContextsAndCombinationReachTheCore) {
  const std::string terms = R"({"terms": [{"logit": {"token": {"id": 1}}}, {"neuron": {}}],
      "combination": "SOFT_MIN", "temperature": 0.5, "goal": "MINIMIZE"})";
  ASSERT_THAT(Parse(Spec(terms, R"(, "contexts": [{"prefix": {"text": "a"}, "suffix":
      {"ids": {"ids": [3, 4]}}}, {}], "acrossContexts": "MIN",
      "fluencyWindow": "PROMPT_AND_SUFFIX")")),
              IsEmpty());
  const Objective& objective = parsed_.objective;
  EXPECT_EQ(objective.combine, Objective::Combine::kSoftMin);
  EXPECT_EQ(objective.temperature, 0.5);
  EXPECT_TRUE(objective.minimize);
  ASSERT_EQ(objective.contexts.size(), 2u);
  EXPECT_EQ(objective.contexts[0].prefix, model_->tokenizer().Encode("a"));
  EXPECT_EQ(objective.contexts[0].suffix, (Prompt{3, 4}));
  EXPECT_TRUE(objective.contexts[1].prefix.empty());
  EXPECT_EQ(objective.across, Objective::Across::kMin);
  EXPECT_TRUE(objective.fluency_over_suffix);
  EXPECT_EQ(RowsAPrompt(objective, 6), 6 + 2 + 6);
}

TEST_F(ConvertObjectiveTest, TheEffectiveSpecSaysAllAndMeansTheSame) {
  const v1::JobSpec spec = Spec(absl::StrCat(
      R"({"terms": [{"logit": {"token": {"text": "a"}}}, {"continuation": {"text": {"text": "b"}}},
          {"feature": {"encoder": )",
      Vector(), R"(}, "position": {"max": {}}}, {"direction": {"vector": )", Vector(), "}}]}"));
  ASSERT_THAT(Parse(spec), IsEmpty());
  const v1::JobSpec full = Converter::EffectiveSpec(spec, parsed_);
  EXPECT_EQ(full.objective().combination(), v1::Objective::SUM);
  EXPECT_EQ(full.objective().goal(), v1::Objective::MAXIMIZE);
  EXPECT_FALSE(full.objective().has_temperature());
  EXPECT_EQ(full.across_contexts(), v1::MEAN);
  EXPECT_EQ(full.fluency_window(), v1::PROMPT_ONLY);
  const auto& terms = full.objective().terms();
  EXPECT_EQ(terms[0].position().frame(), v1::Position::SEQUENCE);
  EXPECT_EQ(terms[0].position().index(), -1);
  EXPECT_EQ(terms[0].weight(), 1);
  EXPECT_EQ(terms[0].constant_scale(), 1);
  EXPECT_FALSE(terms[1].has_position());
  EXPECT_EQ(terms[2].feature().point(), v1::POST_BLOCK);
  EXPECT_EQ(terms[2].feature().activation(), v1::FeatureTerm::NONE);
  EXPECT_EQ(terms[2].position().max().first(), 0);
  EXPECT_EQ(terms[2].position().max().last(), -1);
  EXPECT_EQ(terms[3].direction().point(), v1::PRE_BLOCK);
  ASSERT_THAT(Parse(full), IsEmpty());
  EXPECT_EQ(Converter::EffectiveSpec(full, parsed_).SerializeAsString(), full.SerializeAsString());
}

TEST_F(ConvertObjectiveTest, NamesEachBadField) {
  const std::string vector = Vector();
  const std::string term0 = "spec.objective.terms[0]";
  const std::vector<std::tuple<std::string, std::string, std::string>> cases = {
      {"{}", term0, "has no kind"},
      {R"({"neuron": {"layer": 99}})", term0 + ".neuron.layer", "is 99"},
      {R"({"direction": {}})", term0 + ".direction.vector", "is required"},
      {R"({"direction": {"vector": {"values": "AAAA"}}})", term0 + ".direction.vector",
       "has 3 bytes"},
      {absl::StrCat(R"({"direction": {"vector": {"values": ")", Ones(3), "\"}}}"),
       term0 + ".direction.vector", "has 3 numbers"},
      {absl::StrCat(R"({"direction": {"vector": {"row": 0, "values": ")", Ones(hidden()), "\"}}}"),
       term0 + ".direction.vector.row", "belongs to the name"},
      {R"({"direction": {"vector": {"name": "vnone"}}})", term0 + ".direction.vector",
       "names no vector"},
      {R"({"direction": {"vector": {"name": "vmatrix", "row": 2}}})",
       term0 + ".direction.vector.row", "no row"},
      {absl::StrCat(R"({"direction": {"point": 9, "vector": )", vector, "}}"),
       term0 + ".direction.point", "9 is no point"},
      {absl::StrCat(R"({"feature": {"activation": 9, "encoder": )", vector, "}}"),
       term0 + ".feature.activation", "9 is no activation"},
      {absl::StrCat(R"({"feature": {"threshold": 1, "encoder": )", vector, "}}"),
       term0 + ".feature.threshold", "JUMP_RELU"},
      {absl::StrCat(R"({"feature": {"encoder": )", vector, R"(, "decoderBias": {}}})"),
       term0 + ".feature.decoder_bias", "is required"},
      {R"({"attention": {"head": -1}})", term0 + ".attention.head", "is -1"},
      {R"({"attention": {"key": 5}, "position": {"index": 2}})", term0 + ".attention.key",
       "after the query"},
      {R"({"output": {}})", term0 + ".output.vector", "is required"},
      {R"({"logit": {}})", term0 + ".logit.token", "set its text or its id"},
      {R"({"logit": {"token": {"id": 1000000}}})", term0 + ".logit.token", "1000000"},
      {R"({"logit": {"token": {"text": ""}}})", term0 + ".logit.token", "empty text"},
      {R"({"logitDifference": {"token": {"id": 0}, "other": {"text": "hello there"}}})",
       term0 + ".logit_difference.other", "tokens, the ids "},
      {R"({"continuation": {}})", term0 + ".continuation.text", "set its text or its ids"},
      {R"({"continuation": {"text": {"text": "a"}}, "position": {}})", term0 + ".position",
       "follows the whole sequence"},
      {R"({"cosine": {}})", term0 + ".cosine", "needs a vector or a text"},
      {R"({"cosine": {"text": {"text": ""}}})", term0 + ".cosine.text", "empty text"},
      {R"({"neuron": {}, "position": {"index": 6}})", term0 + ".position.index", "has 6 tokens"},
      {R"({"neuron": {}, "position": {"frame": 9}})", term0 + ".position.frame", "9 is no frame"},
      {R"({"neuron": {}, "position": {"max": {"first": 3, "last": 2}}})", term0 + ".position.max",
       "from 3 to 2"},
      {R"({"neuron": {}, "weight": "NaN"})", term0 + ".weight", "nan"},
      {R"({"neuron": {}, "constantScale": 0})", term0 + ".constant_scale", "above 0"},
      {R"({"neuron": {}, "measuredScale": false})", term0 + ".measured_scale", "no meaning"},
  };
  for (const auto& [term, field, why] : cases) {
    const Found found = ParseTerm(term);
    EXPECT_THAT(found, ElementsAre(Pair(field, HasSubstr(why)))) << term;
  }
  const std::vector<std::tuple<std::string, std::string, std::string>> objectives = {
      {"{}", "spec.objective", "is required"},
      {R"({"neuron": {}, "terms": [{"neuron": {}}]})", "spec.objective", "give one of them"},
      {R"({"neuron": {"neuron": -1}})", "spec.objective.neuron.neuron", "is -1"},
      {R"({"neuron": {}, "temperature": 1})", "spec.objective.temperature", "SOFT_MIN"},
      {R"({"neuron": {}, "combination": "SOFT_MIN", "temperature": 0})",
       "spec.objective.temperature", "above 0"},
      {R"({"neuron": {}, "combination": 9})", "spec.objective.combination", "9 is no combination"},
      {R"({"neuron": {}, "goal": 9})", "spec.objective.goal", "9 is no goal"},
  };
  for (const auto& [objective, field, why] : objectives) {
    EXPECT_THAT(Parse(Spec(objective)), ElementsAre(Pair(field, HasSubstr(why)))) << objective;
  }
  const std::vector<std::tuple<std::string, std::string, std::string>> contexts = {
      {R"(, "contexts": [{}, {"prefix": {}}])", "spec.contexts[1].prefix", "set its text"},
      {R"(, "contexts": [{"suffix": {"text": ""}}])", "spec.contexts[0].suffix", "empty text"},
      {R"(, "contexts": [{"prefix": {"ids": {"ids": [-1]}}}])", "spec.contexts[0].prefix", "id -1"},
      {R"(, "acrossContexts": 9)", "spec.across_contexts", "9 is no way"},
      {R"(, "fluencyWindow": 9)", "spec.fluency_window", "9 is no window"},
  };
  for (const auto& [more, field, why] : contexts) {
    EXPECT_THAT(Parse(Spec(R"({"neuron": {}})", more)), ElementsAre(Pair(field, HasSubstr(why))))
        << more;
  }
}

TEST_F(ConvertObjectiveTest, NamesAllBadFieldsAtOnce) {
  EXPECT_THAT(Parse(Spec(R"({"terms": [{"neuron": {"layer": -1}}, {"logit": {}}, {}]})",
                         R"(, "contexts": [{"prefix": {}}])")),
              ElementsAre(Pair("spec.contexts[0].prefix", HasSubstr("")),
                          Pair("spec.objective.terms[0].neuron.layer", HasSubstr("")),
                          Pair("spec.objective.terms[1].logit.token", HasSubstr("")),
                          Pair("spec.objective.terms[2]", HasSubstr(""))));
}

TEST_F(ConvertObjectiveTest, RowsOfUploadedVectors) {
  ASSERT_THAT(ParseTerm(R"({"direction": {"vector": {"name": "vmatrix"}}})"), IsEmpty());
  EXPECT_EQ(Only<DirectionTerm>().vector->at(0), 1);
  ASSERT_THAT(ParseTerm(R"({"direction": {"vector": {"name": "vmatrix", "row": 1}}})"), IsEmpty());
  EXPECT_EQ(Only<DirectionTerm>().vector->at(0), 2);
  FieldViolations violations;
  const Converter without(*model_);
  without.ParseSpec(Spec(Terms(R"({"direction": {"vector": {"name": "vmatrix"}}})")), "spec",
                    violations);
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "spec.objective.terms[0].direction.vector");
}

TEST_F(ConvertObjectiveTest, BosIsTheCheckpoints) {
  const Found found =
      Parse(Spec(R"({"neuron": {}})", R"(, "contexts": [{"bos": true, "prefix": {"text": "a"}}])"));
  if (const auto bos = model_->config().bos_token; bos.has_value()) {
    ASSERT_THAT(found, IsEmpty());
    EXPECT_EQ(parsed_.objective.contexts[0].prefix[0], *bos);
    EXPECT_EQ(parsed_.objective.contexts[0].prefix[1], model_->tokenizer().Encode("a").at(0));
  } else {
    EXPECT_THAT(found, ElementsAre(Pair("spec.contexts[0].bos", HasSubstr("bos_token_id"))));
  }
}

TEST_F(ConvertObjectiveTest, ScoresNameWhatCannotBeRead) {
  v1::ScoreRequest request;
  const auto parse = [&](const std::string& json) {
    request.Clear();
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &request).ok()) << json;
    const auto spec = converter_.ParseScore(request);
    return spec.ok() ? "" : std::string(spec.status().message());
  };
  EXPECT_EQ(parse(R"({"objective": {"terms": [{"neuron": {}, "position": {"index": 1}}]},
                      "prompts": [{"ids": {"ids": [1, 2]}}]})"),
            "");
  const std::string short_prompt =
      parse(R"({"objective": {"terms": [{"neuron": {}, "position": {"index": 1}}]},
                "prompts": [{"ids": {"ids": [1, 2]}}, {"ids": {"ids": [1]}}]})");
  EXPECT_THAT(short_prompt, HasSubstr("prompts[1]"));
  EXPECT_THAT(short_prompt, HasSubstr("objective.terms[0].position.index"));
  EXPECT_THAT(parse(R"({"objective": {"terms": [{"neuron": {}, "measuredScale": true}]},
                        "prompts": [{"ids": {"ids": [1, 2]}}]})"),
              HasSubstr("objective.terms[0].measured_scale"));
}

}  // namespace
}  // namespace epo
