#include "core/search/run.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/allowed_tokens.h"
#include "core/search/redraw.h"

namespace epo {

struct Run::State {
  // Its scales are measured before the first step, and again after a restart: the same prompts give
  // the same numbers.
  std::shared_ptr<const Target> target;
  SearchOptions options;
  std::shared_ptr<const AllowedTokens> allowed;
  std::unique_ptr<Search> search;
  // What the model knows of each slot's prompt; slots with equal prompts share it. Empty before the
  // first step.
  std::vector<std::shared_ptr<const Prepared>> parents;
};

Run::Run(std::unique_ptr<State> state) : state_(std::move(state)) {}
Run::~Run() = default;

absl::StatusOr<std::unique_ptr<Run>> Run::Create(const Model& model, const Objective& objective,
                                                 const SearchOptions& options) {
  auto target = Target::Create(model, objective);
  if (!target.ok()) return target.status();
  auto state = std::make_unique<State>();
  state->target = *std::move(target);
  state->options = options;
  state->allowed = MakeAllowedTokens(model, options);
  auto search = Search::Create(options, state->allowed,
                               PromptRules::Create(options.constraints, model.tokenizer()));
  if (!search.ok()) return search.status();
  state->search = *std::move(search);
  return std::unique_ptr<Run>(new Run(std::move(state)));
}

absl::StatusOr<std::unique_ptr<Run>> Run::Restore(const Model& model, const Objective& objective,
                                                  const SearchOptions& options,
                                                  std::string_view blob) {
  auto target = Target::Create(model, objective);
  if (!target.ok()) return target.status();
  auto state = std::make_unique<State>();
  state->target = *std::move(target);
  state->options = options;
  state->allowed = MakeAllowedTokens(model, options);
  auto search = Search::Restore(options, state->allowed, blob,
                                PromptRules::Create(options.constraints, model.tokenizer()));
  if (!search.ok()) return search.status();
  state->search = *std::move(search);
  return std::unique_ptr<Run>(new Run(std::move(state)));
}

bool Run::done() const { return state_->search->done(); }
int Run::completed_iterations() const { return state_->search->completed_iterations(); }
int Run::evaluations_per_step() const {
  return state_->options.population * (1 + state_->options.children_per_parent);
}
int64_t Run::device_bytes() const {
  int64_t bytes = 0;
  std::set<const Prepared*> counted;
  for (const auto& parent : state_->parents) {
    if (counted.insert(parent.get()).second) bytes += parent->device_bytes();
  }
  return bytes;
}
void Run::Release() { state_->parents.clear(); }
std::string Run::Save() const { return state_->search->Save(); }

namespace {

// Prompts to prepare for many runs, each distinct one of a run once.
class Preparation {
 public:
  // Index of the result for `prompt` of the run `owner`.
  size_t Add(const void* owner, const Prompt& prompt, const std::shared_ptr<const Target>& target,
             bool gradients) {
    const auto [entry, is_new] = index_.try_emplace({owner, prompt}, requests_.size());
    if (is_new) requests_.push_back({prompt, target, gradients});
    return entry->second;
  }
  std::span<const PrepareRequest> requests() const { return requests_; }

 private:
  std::map<std::pair<const void*, Prompt>, size_t> index_;
  std::vector<PrepareRequest> requests_;
};

constexpr int kScalePrompts = 256;

// The standard deviation of each term of `target` over random prompts of allowed tokens, and of
// terms whose scale is given that.
absl::StatusOr<std::vector<double>> MeasureScales(Evaluator& evaluator,
                                                  const std::shared_ptr<const Target>& target,
                                                  const SearchOptions& options,
                                                  const AllowedTokens& allowed) {
  // Apart from the search's generator, whose draws are the reference implementation's.
  std::mt19937 random(static_cast<uint32_t>(options.seed));
  std::vector<PrepareRequest> requests;
  for (int i = 0; i < kScalePrompts; ++i) {
    Prompt prompt;
    for (int t = 0; t < options.tokens; ++t) {
      prompt.push_back(allowed.ids[random() % allowed.ids.size()]);
    }
    requests.push_back({std::move(prompt), target, /*gradients=*/false});
  }
  const auto prepared = evaluator.Prepare(requests);
  if (!prepared.ok()) return prepared.status();
  std::vector<double> scales(target->scales().begin(), target->scales().end());
  for (size_t t = 0; t < scales.size(); ++t) {
    if (target->objective().terms[t].scale.has_value()) continue;
    double sum = 0;
    for (const auto& one : *prepared) sum += one->term_values()[t];
    const double mean = sum / kScalePrompts;
    double squares = 0;
    for (const auto& one : *prepared) {
      squares += (one->term_values()[t] - mean) * (one->term_values()[t] - mean);
    }
    scales[t] = std::sqrt(squares / (kScalePrompts - 1));
    if (!std::isfinite(scales[t]) || scales[t] <= 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "objective.terms[", t, "].measured_scale: the term has the standard deviation ",
          scales[t], " over ", kScalePrompts, " random prompts; give it a constant_scale"));
    }
  }
  return scales;
}

}  // namespace

absl::StatusOr<std::vector<StepReport>> AdvanceRound(Evaluator& evaluator,
                                                     std::span<Run* const> runs) {
  // Until every model call has succeeded the runs themselves are left alone; a search draws on a
  // copy.
  struct Draft {
    std::unique_ptr<Search> search;
    std::vector<std::shared_ptr<const Prepared>> parents;
    std::vector<Mutation> mutations;
    std::vector<Prompt> children;
    StepReport report;
    // For each slot, the index of its survivor among the prompts prepared now; empty where
    // `parents` has it already.
    std::vector<std::optional<size_t>> pending;
  };
  std::vector<Draft> drafts;

  for (Run* const run : runs) {
    Run::State& state = *run->state_;
    if (!state.target->needs_scales()) continue;
    const auto scales = MeasureScales(evaluator, state.target, state.options, *state.allowed);
    if (!scales.ok()) return scales.status();
    state.target = state.target->WithScales(*scales);
  }

  // First steps, and runs that were restored, have parents that no step has prepared.
  Preparation first;
  std::vector<std::vector<size_t>> first_index(runs.size());
  for (size_t r = 0; r < runs.size(); ++r) {
    const Run::State& state = *runs[r]->state_;
    if (!state.parents.empty()) continue;
    for (const Prompt& parent : state.search->parents()) {
      first_index[r].push_back(first.Add(&state, parent, state.target, true));
    }
  }
  auto first_prepared = evaluator.Prepare(first.requests());
  if (!first_prepared.ok()) return first_prepared.status();

  std::vector<SubstituteQuery> queries;
  for (size_t r = 0; r < runs.size(); ++r) {
    const Run::State& state = *runs[r]->state_;
    Draft draft;
    draft.parents = state.parents;
    for (const size_t index : first_index[r]) draft.parents.push_back((*first_prepared)[index]);
    draft.search = state.search->Clone();
    draft.mutations = draft.search->Ask();
    for (const Mutation& mutation : draft.mutations) {
      queries.push_back({draft.parents[mutation.slot].get(),
                         draft.search->penalties()[mutation.slot], mutation.position, mutation.rank,
                         state.allowed.get()});
    }
    drafts.push_back(std::move(draft));
  }
  auto substitutes = evaluator.Substitutes(queries);
  if (!substitutes.ok()) return substitutes.status();
  std::vector<Brood> broods;
  size_t drawn = 0;
  for (size_t r = 0; r < runs.size(); ++r) {
    const size_t count = drafts[r].mutations.size();
    broods.push_back({drafts[r].search.get(), drafts[r].parents, runs[r]->state_->allowed.get(),
                      runs[r]->state_->options.top_k, drafts[r].mutations,
                      std::span(*substitutes).subspan(drawn, count)});
    drawn += count;
  }
  if (absl::Status kept = RedrawForbidden(evaluator, broods); !kept.ok()) return kept;

  std::vector<Candidate> candidates;
  for (Draft& draft : drafts) {
    for (const Mutation& mutation : draft.mutations) {
      const Prepared& parent = *draft.parents[mutation.slot];
      Prompt child = parent.prompt();
      child[mutation.position] = (*substitutes)[candidates.size()];
      candidates.push_back(
          {&parent, mutation.position, Prompt(child.begin() + mutation.position, child.end())});
      draft.children.push_back(std::move(child));
    }
  }
  auto scores = evaluator.ScoreCandidates(candidates);
  if (!scores.ok()) return scores.status();

  Preparation survivors;
  size_t offset = 0;
  for (size_t r = 0; r < runs.size(); ++r) {
    const Run::State& state = *runs[r]->state_;
    Draft& draft = drafts[r];
    std::vector<Score> parent_scores;
    for (const auto& parent : draft.parents) parent_scores.push_back(parent->score());
    const size_t count = draft.children.size();
    draft.report.iteration = draft.search->Tell(parent_scores, std::move(draft.children),
                                                std::span(*scores).subspan(offset, count));
    offset += count;
    std::vector<std::shared_ptr<const Prepared>> kept;
    for (const Prompt& prompt : draft.search->parents()) {
      const auto known = std::find_if(draft.parents.begin(), draft.parents.end(),
                                      [&](const auto& p) { return p->prompt() == prompt; });
      kept.push_back(known == draft.parents.end() ? nullptr : *known);
      draft.pending.push_back(
          known != draft.parents.end()
              ? std::nullopt
              : std::optional(survivors.Add(&state, prompt, state.target, !draft.search->done())));
    }
    draft.parents = std::move(kept);
  }
  auto prepared = evaluator.Prepare(survivors.requests());
  if (!prepared.ok()) return prepared.status();

  std::vector<StepReport> reports;
  for (size_t r = 0; r < runs.size(); ++r) {
    Draft& draft = drafts[r];
    for (size_t slot = 0; slot < draft.parents.size(); ++slot) {
      if (draft.pending[slot]) draft.parents[slot] = (*prepared)[*draft.pending[slot]];
      const Prepared& survivor = *draft.parents[slot];
      const int kept = draft.report.iteration.keep[slot];
      draft.report.slots.push_back({draft.search->penalties()[slot], survivor.prompt(),
                                    draft.report.iteration.scores[kept], survivor.next_token()});
    }
    draft.report.frontier = draft.search->frontier();
    Run::State& state = *runs[r]->state_;
    draft.report.term_scales.assign(state.target->scales().begin(), state.target->scales().end());
    state.search = std::move(draft.search);
    state.parents = std::move(draft.parents);
    if (state.search->done()) state.parents.clear();
    reports.push_back(std::move(draft.report));
  }
  return reports;
}

}  // namespace epo
