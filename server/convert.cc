#include "server/convert.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/job_state.h"
#include "server/status.h"

namespace epo {
namespace {

bool Reported(const FieldViolations& violations, const std::string& field) {
  return std::any_of(violations.begin(), violations.end(),
                     [&](const FieldViolation& v) { return v.field == field; });
}

// Adds the core's findings under `path`. What was said about a field already stands: the edge knows
// more about its source.
void AddUnder(const std::string& path, FieldViolations found, FieldViolations& violations) {
  for (FieldViolation& violation : found) {
    std::string field = absl::StrCat(path, ".", violation.field);
    if (Reported(violations, field)) continue;
    violations.push_back({std::move(field), std::move(violation.description)});
  }
}

std::string Index(const std::string& path, int i) { return absl::StrCat(path, "[", i, "]"); }

}  // namespace

Converter::Converter(const Model& model)
    : model_(model),
      allowed_(MakeAllowedTokens(model, /*allow_special=*/false)),
      allowed_with_special_(MakeAllowedTokens(model, /*allow_special=*/true)) {}

Objective Converter::ParseObjective(const v1::Objective& objective, bool present,
                                    const std::string& path, FieldViolations& violations) const {
  Objective out;
  if (!present || objective.kind_case() == v1::Objective::KIND_NOT_SET) {
    violations.push_back({path, "is required; set its neuron"});
    return out;
  }
  out.layer = objective.neuron().layer();
  out.neuron = objective.neuron().neuron();
  AddUnder(path, ValidateObjective(out, model_.config()), violations);
  return out;
}

Prompt Converter::ParsePrompt(const v1::Prompt& prompt, const std::string& path,
                              FieldViolations& violations) const {
  Prompt out;
  switch (prompt.source_case()) {
    case v1::Prompt::kText:
      out = model_.tokenizer().Encode(prompt.text());
      if (out.empty()) violations.push_back({path, "is an empty text; give at least one token"});
      break;
    case v1::Prompt::kIds: {
      out.assign(prompt.ids().ids().begin(), prompt.ids().ids().end());
      if (out.empty()) violations.push_back({path, "has no ids; give at least one"});
      break;
    }
    case v1::Prompt::SOURCE_NOT_SET:
      violations.push_back({path, "is empty; set its text or its ids"});
      return out;
  }
  const int64_t vocabulary = model_.config().vocab_size;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] >= 0 && out[i] < vocabulary) continue;
    violations.push_back(
        {path, absl::StrCat("id ", out[i], " at position ", i,
                            " is not in the vocabulary; ids go from 0 to ", vocabulary - 1)});
    break;
  }
  const int64_t context = model_.config().context_length;
  if (static_cast<int64_t>(out.size()) > context) {
    violations.push_back(
        {path, absl::StrCat("has ", out.size(), " tokens, but the model's context is ", context,
                            " tokens")});
  }
  return out;
}

SearchSpec Converter::ParseSpec(const v1::JobSpec& spec, const std::string& path,
                                FieldViolations& violations) const {
  SearchSpec out;
  SearchOptions& options = out.options;
  out.objective =
      ParseObjective(spec.objective(), spec.has_objective(), path + ".objective", violations);

  const std::string prompts_path = path + ".initial_prompts";
  for (int i = 0; i < spec.initial_prompts_size(); ++i) {
    options.initial_prompts.push_back(
        ParsePrompt(spec.initial_prompts(i), Index(prompts_path, i), violations));
  }
  if (spec.has_tokens()) {
    options.tokens = spec.tokens();
  } else if (!options.initial_prompts.empty() && !options.initial_prompts[0].empty()) {
    options.tokens = static_cast<int>(options.initial_prompts[0].size());
  }
  for (int i = 0; i < spec.initial_prompts_size(); ++i) {
    const size_t length = options.initial_prompts[i].size();
    if (static_cast<int64_t>(length) == options.tokens ||
        Reported(violations, Index(prompts_path, i))) {
      continue;
    }
    violations.push_back({Index(prompts_path, i),
                          absl::StrCat("has ", length, " tokens, but ",
                                       spec.has_tokens() ? "tokens is " : "the first prompt has ",
                                       options.tokens, "; make them equal")});
  }

  if (spec.has_population()) options.population = spec.population();
  if (spec.has_children_per_parent()) options.children_per_parent = spec.children_per_parent();
  if (spec.has_top_k()) options.top_k = spec.top_k();
  if (spec.has_penalty_min()) options.penalty_min = spec.penalty_min();
  if (spec.has_penalty_max()) options.penalty_max = spec.penalty_max();
  if (spec.has_iterations()) options.iterations = spec.iterations();
  if (spec.has_restart_period()) options.restart_period = spec.restart_period();
  if (spec.has_restart_penalty()) {
    options.restart_penalty_low = spec.restart_penalty().low();
    options.restart_penalty_high = spec.restart_penalty().high();
  }
  if (spec.has_seed()) options.seed = spec.seed();
  options.allow_special_tokens = spec.allow_special_tokens();
  if (!v1::HistoryMode_IsValid(spec.history())) {
    violations.push_back({path + ".history", absl::StrCat(static_cast<int>(spec.history()),
                                                          " is no mode; give FULL or FRONTIER")});
  }

  const AllowedTokens& allowed = options.allow_special_tokens ? *allowed_with_special_ : *allowed_;
  AddUnder(path, ValidateSearchOptions(options, model_.config(), allowed), violations);

  if (const int priority = PriorityOf(spec); priority < 0 || priority > 100) {
    violations.push_back({path + ".priority", absl::StrCat("is ", priority, "; give 0 to 100")});
  }
  return out;
}

v1::JobSpec Converter::EffectiveSpec(const v1::JobSpec& spec, const SearchSpec& parsed) {
  const SearchOptions& options = parsed.options;
  v1::JobSpec out = spec;
  out.set_tokens(options.tokens);
  out.set_population(options.population);
  out.set_children_per_parent(options.children_per_parent);
  out.set_top_k(options.top_k);
  out.set_penalty_min(options.penalty_min);
  out.set_penalty_max(options.penalty_max);
  out.set_iterations(options.iterations);
  out.set_restart_period(options.restart_period);
  out.mutable_restart_penalty()->set_low(options.restart_penalty_low);
  out.mutable_restart_penalty()->set_high(options.restart_penalty_high);
  out.set_seed(options.seed);
  out.set_allow_special_tokens(options.allow_special_tokens);
  if (out.history() == v1::HISTORY_MODE_UNSPECIFIED) out.set_history(v1::FULL);
  out.set_priority(PriorityOf(spec));
  return out;
}

absl::StatusOr<std::vector<PrepareRequest>> Converter::ParseScore(
    const v1::ScoreRequest& request) const {
  FieldViolations violations;
  const Objective objective =
      ParseObjective(request.objective(), request.has_objective(), "objective", violations);
  std::vector<PrepareRequest> out;
  if (request.prompts().empty()) {
    violations.push_back({"prompts", "is required"});
    return InvalidFields(violations);
  }
  out.reserve(request.prompts_size());
  for (int i = 0; i < request.prompts_size(); ++i) {
    Prompt prompt = ParsePrompt(request.prompts(i), Index("prompts", i), violations);
    out.push_back({std::move(prompt), objective, /*gradients=*/false});
  }
  if (!violations.empty()) return InvalidFields(violations);
  return out;
}

v1::ScoredPrompt Converter::ToScoredPrompt(const Prompt& ids, Score score) const {
  v1::ScoredPrompt out;
  out.mutable_ids()->Add(ids.begin(), ids.end());
  out.set_text(model_.tokenizer().Decode(ids));
  out.set_target(score.target);
  if (ids.size() > 1) out.set_cross_entropy(score.cross_entropy);
  return out;
}

v1::Frontier Converter::ToFrontier(const std::vector<ScoredPrompt>& points) const {
  v1::Frontier out;
  for (const ScoredPrompt& point : points) {
    *out.add_points() = ToScoredPrompt(point.ids, point.score);
  }
  return out;
}

v1::Step Converter::ToStep(const StepReport& report) const {
  v1::Step out;
  out.set_index(report.iteration.index);
  for (const SlotReport& slot : report.slots) {
    v1::Slot* to = out.add_slots();
    to->set_penalty(slot.penalty);
    *to->mutable_prompt() = ToScoredPrompt(slot.ids, slot.score);
    to->set_next_token(slot.next_token);
    to->set_next_token_text(model_.tokenizer().Decode({slot.next_token}));
  }
  *out.mutable_frontier() = ToFrontier(report.frontier);
  if (report.iteration.restart_penalty.has_value()) {
    out.set_restart_penalty(*report.iteration.restart_penalty);
  }
  return out;
}

v1::TokenizeResponse Converter::ToTokens(const std::string& text) const {
  const Tokenizer& tokenizer = model_.tokenizer();
  v1::TokenizeResponse out;
  for (TokenId id : tokenizer.Encode(text)) {
    v1::Token* token = out.add_tokens();
    token->set_id(id);
    token->set_text(tokenizer.Decode({id}));
    token->set_value(std::string(tokenizer.TokenBytes(id)));
  }
  return out;
}

v1::Model Converter::ToModelInfo() const {
  const ModelConfig& config = model_.config();
  v1::Model out;
  out.set_name(model_.name());
  out.set_fingerprint(model_.fingerprint());
  out.set_architecture(config.architecture);
  out.set_layers(static_cast<int32_t>(config.layers));
  out.set_neurons_per_layer(static_cast<int32_t>(config.intermediate_size));
  out.set_hidden_size(static_cast<int32_t>(config.hidden_size));
  out.set_vocabulary_size(static_cast<int32_t>(config.vocab_size));
  out.set_context_length(static_cast<int32_t>(config.context_length));
  out.set_proposable_tokens(static_cast<int32_t>(allowed_->ids.size()));
  out.set_device(model_.device());
  out.set_dtype(model_.dtype());
  return out;
}

v1::Iteration Converter::ToIteration(const Iteration& iteration) {
  v1::Iteration out;
  out.set_index(iteration.index);
  for (const Prompt& ids : iteration.ids) {
    out.add_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  out.mutable_target()->Reserve(static_cast<int>(iteration.scores.size()));
  out.mutable_cross_entropy()->Reserve(static_cast<int>(iteration.scores.size()));
  for (const Score& score : iteration.scores) {
    out.add_target(score.target);
    out.add_cross_entropy(score.cross_entropy);
  }
  out.mutable_keep()->Add(iteration.keep.begin(), iteration.keep.end());
  return out;
}

std::vector<ScoredPrompt> Converter::FromIteration(const v1::Iteration& iteration) {
  std::vector<ScoredPrompt> out;
  out.reserve(iteration.ids_size());
  for (int i = 0; i < iteration.ids_size(); ++i) {
    const auto& ids = iteration.ids(i).ids();
    out.push_back({Prompt(ids.begin(), ids.end()),
                   {.target = iteration.target(i), .cross_entropy = iteration.cross_entropy(i)}});
  }
  return out;
}

}  // namespace epo
