#include "server/convert_objective.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/float_matrix.h"
#include "core/objective/validate.h"
#include "server/convert_prompt.h"

namespace epo {
namespace {

// Reads the messages of one objective.
class Reader {
 public:
  Reader(const Model& model, const VectorSource* vectors, FieldViolations& violations)
      : model_(model), vectors_(vectors), violations_(violations) {}

  void ReadObjective(const v1::Objective& wire, bool present, const std::string& path,
                     Objective& out) {
    const bool short_form = wire.kind_case() == v1::Objective::kNeuron;
    if (!present || (!short_form && wire.terms().empty())) {
      return Add(path, "is required; set its neuron or its terms");
    }
    if (short_form && !wire.terms().empty()) {
      return Add(path, "has a neuron and terms; give one of them");
    }
    if (short_form) out = NeuronObjective(wire.neuron().layer(), wire.neuron().neuron());
    for (int i = 0; i < wire.terms_size(); ++i) {
      out.terms.push_back(ReadTerm(wire.terms(i), Index(path + ".terms", i)));
    }
    if (Known(wire.combination(), v1::Objective::Combination_IsValid, path + ".combination",
              "combination; give SUM or SOFT_MIN") &&
        wire.combination() == v1::Objective::SOFT_MIN) {
      out.combine = Objective::Combine::kSoftMin;
    }
    if (wire.has_temperature()) {
      out.temperature = wire.temperature();
      if (out.combine != Objective::Combine::kSoftMin) {
        Add(path + ".temperature", "belongs to the combination SOFT_MIN; leave it out");
      }
    }
    if (Known(wire.goal(), v1::Objective::Goal_IsValid, path + ".goal",
              "goal; give MAXIMIZE or MINIMIZE")) {
      out.minimize = wire.goal() == v1::Objective::MINIMIZE;
    }
  }

  Context ReadContext(const v1::Context& wire, const std::string& path) {
    Context out;
    if (wire.has_prefix()) {
      out.prefix = ParsePrompt(model_, wire.prefix(), path + ".prefix", violations_);
    }
    if (wire.bos()) {
      if (const auto bos = model_.config().bos_token; bos.has_value()) {
        out.prefix.insert(out.prefix.begin(), *bos);
      } else {
        Add(path + ".bos",
            "is true, but the model's config.json names no bos_token_id in its vocabulary; give "
            "the token in the prefix");
      }
    }
    if (wire.has_suffix()) {
      out.suffix = ParsePrompt(model_, wire.suffix(), path + ".suffix", violations_);
    }
    return out;
  }

  template <class Request>
  Objective Read(const Request& request, const std::string& prefix) {
    Objective out;
    ReadObjective(request.objective(), request.has_objective(), prefix + "objective", out);
    for (int i = 0; i < request.contexts_size(); ++i) {
      out.contexts.push_back(ReadContext(request.contexts(i), Index(prefix + "contexts", i)));
    }
    if (Known(request.across_contexts(), v1::AcrossContexts_IsValid, prefix + "across_contexts",
              "way across contexts; give MEAN or MIN") &&
        request.across_contexts() == v1::MIN) {
      out.across = Objective::Across::kMin;
    }
    if (Known(request.fluency_window(), v1::FluencyWindow_IsValid, prefix + "fluency_window",
              "window; give PROMPT_ONLY or PROMPT_AND_SUFFIX")) {
      out.fluency_over_suffix = request.fluency_window() == v1::PROMPT_AND_SUFFIX;
    }
    return out;
  }

 private:
  void Add(const std::string& field, const std::string& description) {
    violations_.push_back({field, description});
  }

  template <class Enum>
  bool Known(Enum value, bool (*is_valid)(int), const std::string& field, const char* what) {
    if (is_valid(value)) return true;
    Add(field, absl::StrCat(static_cast<int>(value), " is no ", what));
    return false;
  }

  Term ReadTerm(const v1::Term& wire, const std::string& path) {
    Term out;
    switch (wire.kind_case()) {
      case v1::Term::kNeuron:
        out.kind = NeuronTerm{wire.neuron().layer(), wire.neuron().neuron()};
        break;
      case v1::Term::kDirection:
        out.kind = ReadDirection(wire.direction(), path + ".direction");
        break;
      case v1::Term::kFeature:
        out.kind = ReadFeature(wire.feature(), path + ".feature");
        break;
      case v1::Term::kAttention:
        out.kind = AttentionTerm{wire.attention().layer(), wire.attention().head(),
                                 wire.attention().key()};
        break;
      case v1::Term::kOutput:
        out.kind = ReadOutput(wire.output(), path + ".output");
        break;
      case v1::Term::kLogit:
        out.kind =
            LogitTerm{ParseToken(model_, wire.logit().token(), path + ".logit.token", violations_)};
        break;
      case v1::Term::kLogitDifference:
        out.kind = ReadDifference(wire.logit_difference(), path + ".logit_difference");
        break;
      case v1::Term::kContinuation:
        out.kind = ContinuationTerm{ParsePrompt(model_, wire.continuation().text(),
                                                path + ".continuation.text", violations_)};
        break;
      case v1::Term::kCosine:
        out.kind = ReadCosine(wire.cosine(), path + ".cosine");
        break;
      case v1::Term::KIND_NOT_SET:
        Add(path,
            "has no kind; set its neuron, direction, feature, attention, output, logit, "
            "logit_difference, continuation or cosine");
        break;
    }
    if (wire.has_position()) {
      if (wire.kind_case() == v1::Term::kContinuation) {
        Add(path + ".position", "is of no use to a continuation, which follows the whole sequence");
      } else {
        out.position = ReadPosition(wire.position(), path + ".position");
      }
    }
    if (wire.has_weight()) out.weight = wire.weight();
    if (wire.scale_case() == v1::Term::kConstantScale) out.scale = wire.constant_scale();
    if (wire.scale_case() == v1::Term::kMeasuredScale) {
      out.scale.reset();
      if (!wire.measured_scale()) {
        Add(path + ".measured_scale", "is false, which has no meaning; leave it out");
      }
    }
    return out;
  }

  Position ReadPosition(const v1::Position& wire, const std::string& path) {
    Position out;
    if (Known(wire.frame(), v1::Position::Frame_IsValid, path + ".frame",
              "frame; give SEQUENCE or PROMPT") &&
        wire.frame() == v1::Position::PROMPT) {
      out.frame = Position::Frame::kPrompt;
    }
    const auto window = [&](const v1::Window& ends, Position::Reduce reduce) {
      out.reduce = reduce;
      out.first = ends.has_first() ? ends.first() : 0;
      out.last = ends.has_last() ? ends.last() : -1;
    };
    switch (wire.where_case()) {
      case v1::Position::kIndex:
        out.first = out.last = wire.index();
        break;
      case v1::Position::kMax:
        window(wire.max(), Position::Reduce::kMax);
        break;
      case v1::Position::kMean:
        window(wire.mean(), Position::Reduce::kMean);
        break;
      case v1::Position::WHERE_NOT_SET:
        break;
    }
    return out;
  }

  ResidualPoint ReadPoint(v1::ResidualPoint point, ResidualPoint fallback,
                          const std::string& path) {
    Known(point, v1::ResidualPoint_IsValid, path,
          "point; give PRE_BLOCK, POST_ATTENTION or POST_BLOCK");
    if (point == v1::PRE_BLOCK) return ResidualPoint::kPreBlock;
    if (point == v1::POST_ATTENTION) return ResidualPoint::kPostAttention;
    if (point == v1::POST_BLOCK) return ResidualPoint::kPostBlock;
    return fallback;
  }

  // Null after a finding, and for a vector that is not there.
  VectorValues ReadVector(const v1::Vector& wire, const std::string& path) {
    switch (wire.source_case()) {
      case v1::Vector::kValues:
        if (wire.has_row()) {
          Add(path + ".row", "belongs to the name of an uploaded matrix; leave it out");
        }
        if (wire.values().size() % sizeof(float) != 0) {
          Add(path, absl::StrCat("has ", wire.values().size(),
                                 " bytes, which is no number of float32 values; each has 4"));
          return nullptr;
        }
        return std::make_shared<const std::vector<float>>(
            ToFloats(wire.values(), NumberFormat::kFloat32));
      case v1::Vector::kName: {
        absl::StatusOr<VectorValues> row =
            vectors_ == nullptr ? absl::NotFoundError("names a vector, but there are none here")
                                : vectors_->Row(wire.name(), wire.row());
        if (row.ok()) return *std::move(row);
        Add(absl::IsOutOfRange(row.status()) ? path + ".row" : path,
            std::string(row.status().message()));
        return nullptr;
      }
      case v1::Vector::SOURCE_NOT_SET:
        break;
    }
    Add(path, "is required; set its values or its name");
    return nullptr;
  }

  DirectionTerm ReadDirection(const v1::DirectionTerm& wire, const std::string& path) {
    return {.layer = wire.layer(),
            .point = ReadPoint(wire.point(), ResidualPoint::kPreBlock, path + ".point"),
            .vector = ReadVector(wire.vector(), path + ".vector"),
            .standardise = wire.standardized()};
  }

  FeatureTerm ReadFeature(const v1::FeatureTerm& wire, const std::string& path) {
    FeatureTerm out{.layer = wire.layer(),
                    .point = ReadPoint(wire.point(), ResidualPoint::kPostBlock, path + ".point"),
                    .encoder = ReadVector(wire.encoder(), path + ".encoder"),
                    .bias = wire.bias()};
    if (wire.has_decoder_bias()) {
      out.decoder_bias = ReadVector(wire.decoder_bias(), path + ".decoder_bias");
    }
    Known(wire.activation(), v1::FeatureTerm::Activation_IsValid, path + ".activation",
          "activation; give NONE, RELU or JUMP_RELU");
    if (wire.activation() == v1::FeatureTerm::RELU) out.activation = FeatureTerm::Activation::kRelu;
    out.threshold = wire.threshold();
    if (wire.activation() == v1::FeatureTerm::JUMP_RELU) {
      out.activation = FeatureTerm::Activation::kJumpRelu;
    } else if (wire.threshold() != 0) {
      Add(path + ".threshold", "belongs to the activation JUMP_RELU; leave it out");
    }
    return out;
  }

  OutputTerm ReadOutput(const v1::OutputTerm& wire, const std::string& path) {
    return {.layer = wire.layer(),
            .head = wire.has_head() ? std::optional<int>(wire.head()) : std::nullopt,
            .vector = ReadVector(wire.vector(), path + ".vector")};
  }

  LogitDifferenceTerm ReadDifference(const v1::LogitDifferenceTerm& wire, const std::string& path) {
    LogitDifferenceTerm out;
    out.token = ParseToken(model_, wire.token(), path + ".token", violations_);
    if (!wire.has_other()) return out;
    const size_t before = violations_.size();
    const TokenId other = ParseToken(model_, wire.other(), path + ".other", violations_);
    // What stands in for a bad token may equal the other one.
    if (violations_.size() == before) out.other = other;
    return out;
  }

  CosineTerm ReadCosine(const v1::CosineTerm& wire, const std::string& path) {
    CosineTerm out{.layer = wire.layer(),
                   .point = ReadPoint(wire.point(), ResidualPoint::kPreBlock, path + ".point")};
    if (wire.has_vector()) out.vector = ReadVector(wire.vector(), path + ".vector");
    if (wire.has_text()) out.text = ParsePrompt(model_, wire.text(), path + ".text", violations_);
    if (wire.with_case() == v1::CosineTerm::WITH_NOT_SET) {
      Add(path, "needs a vector or a text");
    }
    return out;
  }

  const Model& model_;
  const VectorSource* const vectors_;
  FieldViolations& violations_;
};

// Whether something was said about `field` or about what stands within it.
bool ReportedWithin(const FieldViolations& violations, const std::string& field) {
  return std::any_of(violations.begin(), violations.end(), [&](const FieldViolation& violation) {
    absl::string_view rest = violation.field;
    return absl::ConsumePrefix(&rest, field) &&
           (rest.empty() || rest.front() == '.' || rest.front() == '[');
  });
}

void FillTerm(v1::Term& term) {
  if (!term.has_weight()) term.set_weight(1);
  if (term.scale_case() == v1::Term::SCALE_NOT_SET) term.set_constant_scale(1);
  if (term.kind_case() != v1::Term::kContinuation) {
    v1::Position& position = *term.mutable_position();
    if (position.frame() == v1::Position::FRAME_UNSPECIFIED) {
      position.set_frame(v1::Position::SEQUENCE);
    }
    const auto window = [](v1::Window& ends) {
      if (!ends.has_first()) ends.set_first(0);
      if (!ends.has_last()) ends.set_last(-1);
    };
    if (position.has_max()) window(*position.mutable_max());
    if (position.has_mean()) window(*position.mutable_mean());
    if (position.where_case() == v1::Position::WHERE_NOT_SET) position.set_index(-1);
  }
  if (term.has_direction() && term.direction().point() == v1::RESIDUAL_POINT_UNSPECIFIED) {
    term.mutable_direction()->set_point(v1::PRE_BLOCK);
  }
  if (term.has_cosine() && term.cosine().point() == v1::RESIDUAL_POINT_UNSPECIFIED) {
    term.mutable_cosine()->set_point(v1::PRE_BLOCK);
  }
  if (term.has_feature()) {
    v1::FeatureTerm& feature = *term.mutable_feature();
    if (feature.point() == v1::RESIDUAL_POINT_UNSPECIFIED) feature.set_point(v1::POST_BLOCK);
    if (feature.activation() == v1::FeatureTerm::ACTIVATION_UNSPECIFIED) {
      feature.set_activation(v1::FeatureTerm::NONE);
    }
  }
}

}  // namespace

Objective ParseObjective(const Model& model, const VectorSource* vectors, const v1::JobSpec& spec,
                         const std::string& prefix, FieldViolations& violations) {
  return Reader(model, vectors, violations).Read(spec, prefix);
}

Objective ParseObjective(const Model& model, const VectorSource* vectors,
                         const v1::ScoreRequest& request, const std::string& prefix,
                         FieldViolations& violations) {
  return Reader(model, vectors, violations).Read(request, prefix);
}

void CheckObjective(const Model& model, const Objective& objective, const v1::Objective& wire,
                    std::optional<int> tokens, const std::string& prefix,
                    FieldViolations& violations) {
  // Without terms, which was said.
  if (ReportedWithin(violations, prefix + "objective") && objective.terms.empty()) return;
  for (FieldViolation& found : ValidateObjective(objective, model.config(), tokens)) {
    absl::string_view name = found.field;
    if (wire.has_neuron()) absl::ConsumePrefix(&name, "terms[0].");
    const bool of_contexts = absl::StartsWith(found.field, "contexts");
    std::string field = absl::StrCat(prefix, of_contexts ? "" : "objective.", name);
    if (ReportedWithin(violations, field)) continue;
    violations.push_back({std::move(field), std::move(found.description)});
  }
}

void FillObjective(v1::JobSpec& spec) {
  v1::Objective& objective = *spec.mutable_objective();
  for (v1::Term& term : *objective.mutable_terms()) FillTerm(term);
  if (objective.combination() == v1::Objective::COMBINATION_UNSPECIFIED) {
    objective.set_combination(v1::Objective::SUM);
  }
  if (objective.combination() == v1::Objective::SOFT_MIN && !objective.has_temperature()) {
    objective.set_temperature(Objective().temperature);
  }
  if (objective.goal() == v1::Objective::GOAL_UNSPECIFIED) {
    objective.set_goal(v1::Objective::MAXIMIZE);
  }
  if (spec.across_contexts() == v1::ACROSS_CONTEXTS_UNSPECIFIED) spec.set_across_contexts(v1::MEAN);
  if (spec.fluency_window() == v1::FLUENCY_WINDOW_UNSPECIFIED) {
    spec.set_fluency_window(v1::PROMPT_ONLY);
  }
}

int64_t RowsAPrompt(const Objective& objective, int tokens) {
  int64_t continuations = 0;
  int64_t continued = 0;
  for (const Term& term : objective.terms) {
    if (const auto* kind = std::get_if<ContinuationTerm>(&term.kind)) {
      ++continuations;
      continued += static_cast<int64_t>(kind->tokens.size());
    }
  }
  const int64_t readings = std::max<int64_t>(continuations, 1);
  const int64_t contexts = std::max<int64_t>(static_cast<int64_t>(objective.contexts.size()), 1);
  int64_t rows = contexts * (readings * tokens + continued);
  for (const Context& context : objective.contexts) {
    rows += readings * static_cast<int64_t>(context.suffix.size());
  }
  return rows;
}

bool HasCrossEntropy(const Objective& objective, size_t tokens) {
  if (tokens > 1) return true;
  return std::any_of(objective.contexts.begin(), objective.contexts.end(),
                     [&](const Context& context) {
                       return !context.prefix.empty() ||
                              (objective.fluency_over_suffix && !context.suffix.empty());
                     });
}

}  // namespace epo
