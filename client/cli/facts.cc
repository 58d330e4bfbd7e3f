#include "client/cli/facts.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/time/time.h>

#include <algorithm>

#include "client/cli/objective_text.h"
#include "client/cli/sweep_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

// Prompts to start from that are told of one by one.
constexpr int kShownPrompts = 3;

std::string PromptText(const v1::Prompt& prompt) {
  return prompt.has_text() ? Quote(prompt.text())
                           : absl::StrCat("ids ", absl::StrJoin(prompt.ids().ids(), ","));
}

// BOS "before" PROMPT "after".
std::string ContextText(const v1::Context& context) {
  std::string text = context.bos() ? "BOS " : "";
  if (context.has_prefix()) absl::StrAppend(&text, PromptText(context.prefix()), " ");
  absl::StrAppend(&text, "PROMPT");
  if (context.has_suffix()) absl::StrAppend(&text, " ", PromptText(context.suffix()));
  return text;
}

std::string InitialText(const google::protobuf::RepeatedPtrField<v1::Prompt>& prompts) {
  std::vector<std::string> parts;
  for (int i = 0; i < std::min(prompts.size(), kShownPrompts); ++i) {
    parts.push_back(PromptText(prompts[i]));
  }
  if (prompts.size() > kShownPrompts) {
    parts.push_back(absl::StrCat(prompts.size() - kShownPrompts, " more"));
  }
  return absl::StrJoin(parts, ", ");
}

// What of a search is otherwise than by default, and stands in no row of its own.
void AddUnusual(const v1::JobSpec& spec, Facts& rows) {
  for (int i = 0; i < spec.contexts_size(); ++i) {
    rows.emplace_back(spec.contexts_size() == 1 ? "context" : absl::StrCat("context ", i),
                      ContextText(spec.contexts(i)));
  }
  if (spec.across_contexts() == v1::MIN) rows.emplace_back("across", "the least of the contexts");
  if (spec.fluency_window() == v1::PROMPT_AND_SUFFIX) {
    rows.emplace_back("fluency", "of prompt and suffix");
  }
  if (spec.initial_prompts_size() > 0) {
    rows.emplace_back("starts from", InitialText(spec.initial_prompts()));
  }
  if (spec.has_constraints()) {
    rows.emplace_back("constraints", ConstraintsText(spec.constraints()));
  }
  if (spec.history() == v1::FRONTIER) rows.emplace_back("history", "survivors and frontiers only");
}

// Whether a term is divided by what the job measures.
bool Measures(const v1::Objective& objective) {
  return std::any_of(objective.terms().begin(), objective.terms().end(),
                     [](const v1::Term& term) { return term.measured_scale(); });
}

}  // namespace

Facts JobFacts(const v1::Job& job) {
  const v1::JobSpec& spec = job.spec();
  Facts rows = {
      {"id", Escape(job.id())},
      {"state", v1::Job::State_Name(job.state())},
      {"objective", ObjectiveText(spec.objective())},
      {"iterations", absl::StrCat(job.completed_iterations(), "/", spec.iterations())},
      {"evaluations", absl::StrCat(job.evaluations())},
      {"tokens", absl::StrCat(spec.tokens())},
      {"population", absl::StrCat(spec.population(), " x ", spec.children_per_parent(),
                                  " children, top-k ", spec.top_k())},
      {"penalties", absl::StrCat(spec.penalty_min(), " to ", spec.penalty_max())},
      {"restart",
       spec.restart_period() == 0
           ? "never"
           : absl::StrCat("every ", spec.restart_period(), ", penalty ",
                          spec.restart_penalty().low(), " to ", spec.restart_penalty().high())},
      {"seed", absl::StrCat(spec.seed())},
      {"priority", absl::StrCat(spec.priority())},
      {"deadline", spec.has_deadline() ? FormatRfc3339(spec.deadline()) : "never"},
      {"created", job.has_create_time() ? FormatRfc3339(job.create_time()) : "-"},
      {"started", job.has_start_time() ? FormatRfc3339(job.start_time()) : "-"},
      {"ended", job.has_end_time() ? FormatRfc3339(job.end_time()) : "-"},
      {"device time", DurationText(absl::Seconds(job.run_seconds()))},
  };
  if (Measures(spec.objective())) {
    rows.emplace_back("term scales", job.term_scales().empty()
                                         ? "measured before the first step"
                                         : absl::StrJoin(job.term_scales(), ", "));
  }
  AddUnusual(spec, rows);
  if (job.queue_position() > 0) {
    rows.emplace_back("queue", absl::StrCat("place ", job.queue_position(), ", to start ",
                                            job.has_estimated_start_time()
                                                ? FormatRfc3339(job.estimated_start_time())
                                                : "at a time not known yet"));
  }
  if (!job.waits_for().empty()) rows.emplace_back("waits for", Escape(job.waits_for()));
  if (job.crashes() > 0) {
    rows.emplace_back("crashes", absl::StrCat(job.crashes(), " of the server in its steps, in ",
                                              job.attempts(), " attempts"));
  }
  if (!job.sweep().empty()) {
    rows.emplace_back("sweep",
                      absl::StrCat(Escape(job.sweep()), ", job ", job.sweep_index(), " of it"));
  }
  if (!job.client().empty()) rows.emplace_back("client", Escape(job.client()));
  if (job.has_error()) rows.emplace_back("error", Escape(job.error().message()));
  return rows;
}

Facts SweepFacts(const v1::Sweep& sweep) {
  const v1::JobSpec& spec = sweep.spec().job();
  const auto time = [](bool known, const google::protobuf::Timestamp& at) {
    return known ? FormatRfc3339(at) : "-";
  };
  Facts rows = {
      {"id", Escape(sweep.id())},
      {"state", v1::Sweep::State_Name(sweep.state())},
      {"size", SweepSizeText(sweep)},
      {"jobs", JobCountsText(sweep.jobs())},
      {"iterations", absl::StrCat(sweep.completed_iterations(), "/", sweep.total_iterations())},
      {"evaluations", absl::StrCat(sweep.evaluations())},
      {"tokens", absl::StrCat(spec.tokens())},
      {"population", absl::StrCat(spec.population(), " x ", spec.children_per_parent(),
                                  " children, top-k ", spec.top_k())},
      {"priority", absl::StrCat(spec.priority())},
      {"deadline", spec.has_deadline() ? FormatRfc3339(spec.deadline()) : "never"},
      {"created", time(sweep.has_create_time(), sweep.create_time())},
      {"started", time(sweep.has_start_time(), sweep.start_time())},
      {"ended", time(sweep.has_end_time(), sweep.end_time())},
      {"device time", DurationText(absl::Seconds(sweep.run_seconds()))},
  };
  AddUnusual(spec, rows);
  if (!sweep.client().empty()) rows.emplace_back("client", Escape(sweep.client()));
  return rows;
}

std::vector<std::string> FactLines(const Facts& facts) {
  std::vector<std::string> lines;
  lines.reserve(facts.size());
  for (const auto& [name, value] : facts) lines.push_back(PadRight(name, 13) + value);
  return lines;
}

}  // namespace epo::cli
