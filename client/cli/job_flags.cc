#include "client/cli/job_flags.h"

#include <absl/time/clock.h>

#include <random>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/time.h"

namespace epo::cli {

void AddJobFlags(CLI::App* app, JobFlags& flags) {
  flags.app = app;
  app->add_option("--tokens", flags.tokens, "Tokens a prompt (12)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--population", flags.population, "Prompts kept, each with its own penalty (8)")
      ->transform(Int32())
      ->option_text("M");
  app->add_option("--children", flags.children, "Mutations of each prompt an iteration (32)")
      ->transform(Int32())
      ->option_text("R");
  app->add_option("--topk", flags.topk, "Replacements are drawn from the best K tokens (512)")
      ->transform(Int32())
      ->option_text("K");
  app->add_option("--iterations", flags.iterations, "Iterations (300)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--penalty-min", flags.penalty_min, "Least cross-entropy penalty (0.1)")
      ->transform(Number())
      ->option_text("X");
  app->add_option("--penalty-max", flags.penalty_max, "Largest cross-entropy penalty (10)")
      ->transform(Number())
      ->option_text("X");
  app->add_option("--restart-every", flags.restart_every,
                  "Iterations between restarts, 0: never (50)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--restart-penalty", flags.restart_penalty,
                  "Penalty of a restart, X or LO:HI (2.0)")
      ->option_text("X");
  CLI::Option* text = AddPromptOption(
      app, "--initial-text", "Start from a text; several times (at most --population): in turn");
  CLI::Option* ids =
      AddPromptOption(app, "--initial-ids", "Start from token ids, as in 1,2,3; likewise");
  AddTopic(app, kStartTopic, "Prompts to start from: --initial-text, ...",
           {text->option_text("TEXT"), ids->option_text("IDS")});
  flags.initial_text = text;
  flags.initial_ids = ids;
  AddConstraintFlags(app, flags.constraints);
  app->add_option("--priority", flags.priority, "0 to 100; ten more is twice the share (50)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--deadline", flags.deadline, "When it ends at the latest: a time, or as in 2h")
      ->option_text("TIME");
  app->add_option("--history", flags.history, "What is kept of each iteration: full or frontier")
      ->check(CLI::IsMember({"full", "frontier"}).description(""))
      ->option_text("KIND");
  app->add_option("--request-id", flags.request_id, "A repeat under one UUID makes nothing new")
      ->option_text("UUID");
}

v1::JobSpec ToJobSpec(const JobFlags& flags, std::vector<std::string>& prompt_flags) {
  v1::JobSpec spec;
  if (flags.tokens) spec.set_tokens(*flags.tokens);
  if (flags.population) spec.set_population(*flags.population);
  if (flags.children) spec.set_children_per_parent(*flags.children);
  if (flags.topk) spec.set_top_k(*flags.topk);
  if (flags.iterations) spec.set_iterations(*flags.iterations);
  if (flags.penalty_min) spec.set_penalty_min(*flags.penalty_min);
  if (flags.penalty_max) spec.set_penalty_max(*flags.penalty_max);
  if (flags.restart_every) spec.set_restart_period(*flags.restart_every);
  SetConstraints(flags.constraints, spec);
  if (flags.restart_penalty) {
    const auto range = ParsePenaltyRange(*flags.restart_penalty);
    if (!range.ok()) {
      throw CLI::ValidationError("--restart-penalty", std::string(range.status().message()));
    }
    *spec.mutable_restart_penalty() = *range;
  }
  if (flags.priority) spec.set_priority(*flags.priority);
  if (flags.deadline) {
    const auto deadline = ParseDeadline(*flags.deadline, absl::Now());
    if (!deadline.ok()) {
      throw CLI::ValidationError("--deadline", std::string(deadline.status().message()));
    }
    *spec.mutable_deadline() = ToTimestamp(*deadline);
  }
  if (flags.history) spec.set_history(*flags.history == "full" ? v1::FULL : v1::FRONTIER);
  for (auto& [prompt, flag] : CollectPrompts(flags.app, flags.initial_text, flags.initial_ids)) {
    *spec.add_initial_prompts() = prompt;
    prompt_flags.push_back(flag);
  }
  return spec;
}

std::string RequestId(const JobFlags& flags) {
  if (!flags.request_id.empty()) return flags.request_id;
  std::random_device random;
  std::string uuid = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
  for (char& digit : uuid) {
    if (digit == 'x') digit = "0123456789abcdef"[random() % 16];
    if (digit == 'y') digit = "89ab"[random() % 4];
  }
  return uuid;
}

}  // namespace epo::cli
