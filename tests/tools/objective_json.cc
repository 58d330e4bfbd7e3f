#include "tests/tools/objective_json.h"

#include <map>
#include <string>
#include <utility>

namespace epo {
namespace {

using Json = nlohmann::json;

template <typename T>
T OneOf(const Json& json, const char* key, const std::map<std::string, T>& names, T absent) {
  if (!json.contains(key)) return absent;
  return names.at(json.at(key).get<std::string>());
}

VectorValues VectorOf(const Json& json, const char* key) {
  if (!json.contains(key)) return nullptr;
  return std::make_shared<const std::vector<float>>(json.at(key).get<std::vector<float>>());
}

ResidualPoint PointOf(const Json& json) {
  return OneOf<ResidualPoint>(json, "point",
                              {{"pre_block", ResidualPoint::kPreBlock},
                               {"post_attention", ResidualPoint::kPostAttention},
                               {"post_block", ResidualPoint::kPostBlock}},
                              ResidualPoint::kPreBlock);
}

FeatureTerm FeatureFrom(const Json& json) {
  FeatureTerm term;
  term.layer = json.at("layer").get<int>();
  term.point = PointOf(json);
  term.encoder = VectorOf(json, "encoder");
  term.bias = json.value("bias", 0.0);
  term.decoder_bias = VectorOf(json, "decoder_bias");
  term.activation =
      OneOf<FeatureTerm::Activation>(json, "activation",
                                     {{"none", FeatureTerm::Activation::kNone},
                                      {"relu", FeatureTerm::Activation::kRelu},
                                      {"jump_relu", FeatureTerm::Activation::kJumpRelu}},
                                     FeatureTerm::Activation::kNone);
  term.threshold = json.value("threshold", 0.0);
  return term;
}

OutputTerm OutputFrom(const Json& json) {
  OutputTerm term{.layer = json.at("layer").get<int>()};
  if (json.contains("head")) term.head = json.at("head").get<int>();
  term.vector = VectorOf(json, "vector");
  return term;
}

CosineTerm CosineFrom(const Json& json) {
  CosineTerm term{.layer = json.at("layer").get<int>(), .point = PointOf(json)};
  term.vector = VectorOf(json, "vector");
  term.text = json.value("text", Prompt());
  return term;
}

Position PositionFrom(const Json& json) {
  Position position;
  position.frame = OneOf<Position::Frame>(
      json, "frame",
      {{"sequence", Position::Frame::kSequence}, {"prompt", Position::Frame::kPrompt}},
      Position::Frame::kSequence);
  position.reduce = OneOf<Position::Reduce>(json, "reduce",
                                            {{"one", Position::Reduce::kOne},
                                             {"max", Position::Reduce::kMax},
                                             {"mean", Position::Reduce::kMean}},
                                            Position::Reduce::kOne);
  position.first = json.value("first", -1);
  position.last = json.value("last", -1);
  return position;
}

Term TermFrom(const Json& json) {
  Term term;
  if (json.contains("neuron")) {
    const Json& of = json.at("neuron");
    term.kind = NeuronTerm{of.at(0).get<int>(), of.at(1).get<int>()};
  } else if (json.contains("direction")) {
    const Json& of = json.at("direction");
    term.kind = DirectionTerm{of.at("layer").get<int>(), PointOf(of), VectorOf(of, "vector"),
                              of.value("standardise", false)};
  } else if (json.contains("feature")) {
    term.kind = FeatureFrom(json.at("feature"));
  } else if (json.contains("attention")) {
    const Json& of = json.at("attention");
    term.kind = AttentionTerm{of.at(0).get<int>(), of.at(1).get<int>(), of.at(2).get<int>()};
  } else if (json.contains("output")) {
    term.kind = OutputFrom(json.at("output"));
  } else if (json.contains("logit")) {
    term.kind = LogitTerm{json.at("logit").get<TokenId>()};
  } else if (json.contains("logit_difference")) {
    const Json& of = json.at("logit_difference");
    LogitDifferenceTerm difference{.token = of.at(0).get<TokenId>()};
    if (of.size() > 1) difference.other = of.at(1).get<TokenId>();
    term.kind = difference;
  } else if (json.contains("continuation")) {
    term.kind = ContinuationTerm{json.at("continuation").get<Prompt>()};
  } else {
    term.kind = CosineFrom(json.at("cosine"));
  }
  if (json.contains("position")) term.position = PositionFrom(json.at("position"));
  term.weight = json.value("weight", 1.0);
  if (json.contains("scale")) {
    term.scale = json.at("scale").is_null() ? std::optional<double>()
                                            : std::optional(json.at("scale").get<double>());
  }
  return term;
}

}  // namespace

Objective ObjectiveFromJson(const Json& json) {
  Objective objective;
  for (const Json& term : json.at("terms")) objective.terms.push_back(TermFrom(term));
  objective.combine = OneOf<Objective::Combine>(
      json, "combine",
      {{"sum", Objective::Combine::kSum}, {"soft_min", Objective::Combine::kSoftMin}},
      Objective::Combine::kSum);
  objective.temperature = json.value("temperature", 1.0);
  objective.minimize = json.value("minimize", false);
  for (const Json& context : json.value("contexts", Json::array())) {
    objective.contexts.push_back(
        {context.value("prefix", Prompt()), context.value("suffix", Prompt())});
  }
  objective.across = OneOf<Objective::Across>(
      json, "across", {{"mean", Objective::Across::kMean}, {"min", Objective::Across::kMin}},
      Objective::Across::kMean);
  objective.fluency_over_suffix = json.value("fluency_over_suffix", false);
  return objective;
}

}  // namespace epo
