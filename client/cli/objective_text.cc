#include "client/cli/objective_text.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <vector>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

// Terms that are told of one by one.
constexpr int kShownTerms = 2;
// Columns of a text within an objective's.
constexpr int kTextColumns = 24;
// Columns of an uploaded vector's name: enough to tell a client's vectors apart.
constexpr int kNameColumns = 10;

std::string Short(const std::string& text) { return Clip(Quote(text), kTextColumns); }

std::string TokenText(const v1::TokenReference& token) {
  return token.has_text() ? Short(token.text()) : absl::StrCat("id ", token.id());
}

std::string PromptText(const v1::Prompt& prompt) {
  return prompt.has_text() ? Short(prompt.text())
                           : absl::StrCat(prompt.ids().ids_size(), " tokens");
}

// " v0123456…:5"; nothing for numbers, which have no name.
std::string VectorText(const v1::Vector& vector) {
  if (!vector.has_name()) return "";
  return absl::StrCat(" ", Clip(Escape(vector.name()), kNameColumns),
                      vector.has_row() ? absl::StrCat(":", vector.row()) : "");
}

// "layer 12", "layer 12:mid": as --direction has it, where it is not the one that is meant by none.
std::string PlaceText(int layer, v1::ResidualPoint point, v1::ResidualPoint usual) {
  const char* name = point == v1::PRE_BLOCK        ? ":pre"
                     : point == v1::POST_ATTENTION ? ":mid"
                     : point == v1::POST_BLOCK     ? ":post"
                                                   : "";
  return absl::StrCat("layer ", layer, point == usual ? "" : name);
}

// " at mean:2:5": as --position has it; nothing for the last token.
std::string PositionText(const v1::Position& position) {
  const std::string frame = position.frame() == v1::Position::PROMPT ? "prompt:" : "";
  const auto window = [&](const char* name, const v1::Window& ends) {
    const int first = ends.has_first() ? ends.first() : 0;
    const int last = ends.has_last() ? ends.last() : -1;
    const bool whole = first == 0 && last == -1;
    return absl::StrCat(" at ", frame, name, whole ? "" : absl::StrCat(":", first, ":", last));
  };
  if (position.has_max()) return window("max", position.max());
  if (position.has_mean()) return window("mean", position.mean());
  const int index = position.has_index() ? position.index() : -1;
  return index == -1 && frame.empty() ? "" : absl::StrCat(" at ", frame, index);
}

std::string NeuronText(const v1::NeuronObjective& neuron) {
  return absl::StrCat("layer ", neuron.layer(), " neuron ", neuron.neuron());
}

std::string KindText(const v1::Term& term) {
  switch (term.kind_case()) {
    case v1::Term::kNeuron:
      return NeuronText(term.neuron());
    case v1::Term::kDirection:
      return absl::StrCat(
          PlaceText(term.direction().layer(), term.direction().point(), v1::PRE_BLOCK),
          term.direction().standardized() ? " standardised" : "", " direction",
          VectorText(term.direction().vector()));
    case v1::Term::kFeature:
      return absl::StrCat(PlaceText(term.feature().layer(), term.feature().point(), v1::POST_BLOCK),
                          " feature", VectorText(term.feature().encoder()));
    case v1::Term::kAttention:
      return absl::StrCat("layer ", term.attention().layer(), " head ", term.attention().head(),
                          " attention to ", term.attention().key());
    case v1::Term::kOutput:
      return absl::StrCat(
          "layer ", term.output().layer(),
          term.output().has_head() ? absl::StrCat(" head ", term.output().head()) : " MLP",
          " output", VectorText(term.output().vector()));
    case v1::Term::kLogit:
      return absl::StrCat("logit of ", TokenText(term.logit().token()));
    case v1::Term::kLogitDifference:
      return absl::StrCat("logit of ", TokenText(term.logit_difference().token()), " over ",
                          term.logit_difference().has_other()
                              ? TokenText(term.logit_difference().other())
                              : "all others");
    case v1::Term::kContinuation:
      return absl::StrCat("continuation ", PromptText(term.continuation().text()));
    case v1::Term::kCosine:
      return absl::StrCat(PlaceText(term.cosine().layer(), term.cosine().point(), v1::PRE_BLOCK),
                          " cosine with",
                          !term.cosine().has_vector() ? " " + PromptText(term.cosine().text())
                          : term.cosine().vector().has_name() ? VectorText(term.cosine().vector())
                                                              : " a vector");
    case v1::Term::KIND_NOT_SET:
      break;
  }
  return "a term that this client does not know";
}

std::string TermText(const v1::Term& term) {
  std::string text = absl::StrCat(KindText(term), PositionText(term.position()));
  if (term.has_weight() && term.weight() != 1) text = absl::StrCat(term.weight(), " * ", text);
  if (term.has_constant_scale() && term.constant_scale() != 1) {
    absl::StrAppend(&text, " / ", term.constant_scale());
  }
  return text;
}

}  // namespace

std::string ObjectiveText(const v1::Objective& objective) {
  const std::string sign = objective.goal() == v1::Objective::MINIMIZE ? "least " : "";
  if (objective.has_neuron()) return sign + NeuronText(objective.neuron());
  std::vector<std::string> parts;
  for (int i = 0; i < std::min(objective.terms_size(), kShownTerms); ++i) {
    parts.push_back(TermText(objective.terms(i)));
  }
  if (objective.terms_size() > kShownTerms) {
    parts.push_back(absl::StrCat(objective.terms_size() - kShownTerms, " more"));
  }
  // Of one term it is that term.
  if (objective.combination() != v1::Objective::SOFT_MIN || objective.terms_size() < 2) {
    return sign + absl::StrJoin(parts, " + ");
  }
  const bool usual = !objective.has_temperature() || objective.temperature() == 1;
  return absl::StrCat(sign, "soft-min", usual ? "" : absl::StrCat(" at ", objective.temperature()),
                      " of ", absl::StrJoin(parts, ", "));
}

}  // namespace epo::cli
