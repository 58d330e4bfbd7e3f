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

std::string Short(const std::string& text) { return Clip(Quote(text), kTextColumns); }

std::string TokenText(const v1::TokenReference& token) {
  return token.has_text() ? Short(token.text()) : absl::StrCat("id ", token.id());
}

std::string PromptText(const v1::Prompt& prompt) {
  return prompt.has_text() ? Short(prompt.text())
                           : absl::StrCat(prompt.ids().ids_size(), " tokens");
}

std::string NeuronText(const v1::NeuronObjective& neuron) {
  return absl::StrCat("layer ", neuron.layer(), " neuron ", neuron.neuron());
}

std::string KindText(const v1::Term& term) {
  switch (term.kind_case()) {
    case v1::Term::kNeuron:
      return NeuronText(term.neuron());
    case v1::Term::kDirection:
      return absl::StrCat("layer ", term.direction().layer(), " direction");
    case v1::Term::kFeature:
      return absl::StrCat("layer ", term.feature().layer(), " feature");
    case v1::Term::kAttention:
      return absl::StrCat("layer ", term.attention().layer(), " head ", term.attention().head(),
                          " attention to ", term.attention().key());
    case v1::Term::kOutput:
      return absl::StrCat(
          "layer ", term.output().layer(),
          term.output().has_head() ? absl::StrCat(" head ", term.output().head()) : " MLP",
          " output");
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
      return absl::StrCat(
          "layer ", term.cosine().layer(), " cosine with ",
          term.cosine().has_vector() ? std::string("a vector") : PromptText(term.cosine().text()));
    case v1::Term::KIND_NOT_SET:
      break;
  }
  return "a term that this client does not know";
}

}  // namespace

std::string ObjectiveText(const v1::Objective& objective) {
  const std::string sign = objective.goal() == v1::Objective::MINIMIZE ? "least " : "";
  if (objective.has_neuron()) return sign + NeuronText(objective.neuron());
  std::vector<std::string> parts;
  for (int i = 0; i < std::min(objective.terms_size(), kShownTerms); ++i) {
    parts.push_back(KindText(objective.terms(i)));
  }
  if (objective.terms_size() > kShownTerms) {
    parts.push_back(absl::StrCat(objective.terms_size() - kShownTerms, " more"));
  }
  return sign + absl::StrJoin(parts, " + ");
}

}  // namespace epo::cli
