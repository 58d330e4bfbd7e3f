#include "server/convert.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/convert_prompt.h"
#include "server/job_state.h"
#include "server/status.h"

namespace epo {
namespace {

Constraints ParseConstraints(const v1::Constraints& constraints) {
  Constraints out;
  out.ascii_only = constraints.ascii_only();
  out.decodable_only = constraints.decodable_only();
  out.banned_ids.assign(constraints.banned_ids().begin(), constraints.banned_ids().end());
  out.banned_token_regex = constraints.banned_token_regex();
  out.banned_texts.assign(constraints.banned_texts().begin(), constraints.banned_texts().end());
  out.retokenizable = constraints.retokenizable();
  out.frozen_positions.assign(constraints.frozen_positions().begin(),
                              constraints.frozen_positions().end());
  if (constraints.has_max_cross_entropy()) {
    out.max_cross_entropy = constraints.max_cross_entropy();
  }
  return out;
}

}  // namespace

Converter::Converter(const Model& model, const VectorSource* vectors)
    : model_(model),
      vectors_(vectors),
      allowed_(MakeAllowedTokens(model, /*allow_special=*/false)),
      allowed_with_special_(MakeAllowedTokens(model, /*allow_special=*/true)) {}

SearchSpec Converter::ParseSpec(const v1::JobSpec& spec, const std::string& path,
                                FieldViolations& violations) const {
  SearchSpec out;
  SearchOptions& options = out.options;
  out.objective = ParseObjective(model_, vectors_, spec, path + ".", violations);

  const std::string prompts_path = path + ".initial_prompts";
  for (int i = 0; i < spec.initial_prompts_size(); ++i) {
    options.initial_prompts.push_back(
        ParsePrompt(model_, spec.initial_prompts(i), Index(prompts_path, i), violations));
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

  // Of a length that no prompt has, the objective is not to blame.
  const bool length_good = options.tokens >= 2 && options.tokens <= model_.config().context_length;
  CheckObjective(model_, out.objective, spec.objective(),
                 length_good ? std::optional<int>(options.tokens) : std::nullopt, path + ".",
                 violations);
  options.constraints = ParseConstraints(spec.constraints());
  const AllowedTokens& allowed = options.allow_special_tokens ? *allowed_with_special_ : *allowed_;
  FieldViolations found;
  const std::vector<TokenId> left =
      Narrow(allowed.ids, options.constraints, model_.tokenizer(), found);
  if (spec.has_top_k()) {
    options.top_k = spec.top_k();
  } else if (!left.empty()) {
    options.top_k = static_cast<int>(std::min<int64_t>(options.top_k, std::ssize(left)));
  }
  AddUnder(path, std::move(found), violations);
  AddUnder(path, ValidateSearchOptions(options, model_.config(), allowed), violations);
  AddUnder(path, ValidateConstraints(options, model_.tokenizer(), left), violations);

  if (const int priority = PriorityOf(spec); priority < 0 || priority > 100) {
    violations.push_back({path + ".priority", absl::StrCat("is ", priority, "; give 0 to 100")});
  }
  return out;
}

Objective Converter::ParseSweepObjective(const v1::Objective& objective, const SearchSpec& base,
                                         FieldViolations& violations) const {
  v1::JobSpec spec;
  *spec.mutable_objective() = objective;
  Objective out = ParseObjective(model_, vectors_, spec, "", violations);
  // Read once for all objectives.
  out.contexts = base.objective.contexts;
  out.across = base.objective.across;
  out.fluency_over_suffix = base.objective.fluency_over_suffix;
  const int tokens = base.options.tokens;
  const bool length_good = tokens >= 2 && tokens <= model_.config().context_length;
  CheckObjective(model_, out, objective, length_good ? std::optional<int>(tokens) : std::nullopt,
                 "", violations);
  return out;
}

v1::JobSpec Converter::EffectiveSpec(const v1::JobSpec& spec, const SearchSpec& parsed) {
  const SearchOptions& options = parsed.options;
  v1::JobSpec out = spec;
  FillObjective(out);
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

absl::StatusOr<ScoreSpec> Converter::ParseScore(const v1::ScoreRequest& request) const {
  FieldViolations violations;
  ScoreSpec out = ParseScore(request, violations);
  if (!violations.empty()) return InvalidFields(violations);
  return out;
}

ScoreSpec Converter::ParseScore(const v1::ScoreRequest& request,
                                FieldViolations& violations) const {
  ScoreSpec out;
  out.objective = ParseObjective(model_, vectors_, request, "", violations);
  for (int i = 0; i < request.objective().terms_size(); ++i) {
    if (!request.objective().terms(i).measured_scale()) continue;
    violations.push_back({Index("objective.terms", i) + ".measured_scale",
                          "is what a job measures before its first step; give a constant_scale"});
  }
  CheckObjective(model_, out.objective, request.objective(), std::nullopt, "", violations);
  if (request.prompts().empty()) {
    violations.push_back({"prompts", "is required"});
    return out;
  }
  const bool objective_good = violations.empty();
  // What is wrong with prompts of a length, if anything.
  absl::flat_hash_map<size_t, std::string> lengths;
  for (int i = 0; i < request.prompts_size(); ++i) {
    const std::string path = Index("prompts", i);
    Prompt prompt = ParsePrompt(model_, request.prompts(i), path, violations);
    if (objective_good && !prompt.empty() && !Reported(violations, path)) {
      const auto [length, is_new] = lengths.try_emplace(prompt.size());
      if (is_new) length->second = WhyUnreadable(out.objective, request, prompt.size());
      if (!length->second.empty()) violations.push_back({path, length->second});
    }
    out.prompts.push_back(std::move(prompt));
  }
  return out;
}

std::string Converter::WhyUnreadable(const Objective& objective, const v1::ScoreRequest& request,
                                     size_t tokens) const {
  FieldViolations found;
  CheckObjective(model_, objective, request.objective(), static_cast<int>(tokens), "", found);
  if (found.empty()) return "";
  return absl::StrCat("has ", tokens, " tokens, too few or too many for ", found[0].field,
                      ", which ", found[0].description);
}

v1::ScoredPrompt Converter::ToScoredPrompt(const Prompt& ids, Score score,
                                           bool has_cross_entropy) const {
  v1::ScoredPrompt out;
  out.mutable_ids()->Add(ids.begin(), ids.end());
  out.set_text(model_.tokenizer().Decode(ids));
  out.set_target(score.target);
  if (has_cross_entropy) out.set_cross_entropy(score.cross_entropy);
  out.set_round_trips(model_.tokenizer().Encode(out.text()) == ids);
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
  out.set_chat_template(model_.chat_template());
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
