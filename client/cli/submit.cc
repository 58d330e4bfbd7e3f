#include <absl/time/clock.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/follow.h"
#include "client/cli/json.h"
#include "client/cli/output.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

struct SubmitOptions {
  int32_t layer = 0;
  int32_t neuron = 0;
  // Absent: the server's default.
  std::optional<int32_t> tokens, population, children, topk, iterations, restart_every;
  std::optional<double> penalty_min, penalty_max;
  std::optional<std::string> restart_penalty;
  std::optional<uint64_t> seed;
  std::optional<int32_t> priority;
  std::optional<std::string> deadline, history;
  std::string request_id;
  bool allow_special_tokens = false;
  bool watch = false;
  bool wait = false;
  const CLI::App* app = nullptr;
  const CLI::Option* initial_text = nullptr;
  const CLI::Option* initial_ids = nullptr;
};

// A random UUID (version 4).
std::string NewRequestId() {
  std::random_device random;
  std::string uuid = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
  for (char& digit : uuid) {
    if (digit == 'x') digit = "0123456789abcdef"[random() % 16];
    if (digit == 'y') digit = "89ab"[random() % 4];
  }
  return uuid;
}

// Only what the user gave is in the request: the server fills in the rest.
v1::CreateJobRequest ToRequest(const SubmitOptions& options,
                               std::vector<std::string>& prompt_flags) {
  v1::CreateJobRequest request;
  request.set_request_id(options.request_id.empty() ? NewRequestId() : options.request_id);
  v1::JobSpec& spec = *request.mutable_spec();
  spec.mutable_objective()->mutable_neuron()->set_layer(options.layer);
  spec.mutable_objective()->mutable_neuron()->set_neuron(options.neuron);
  if (options.tokens) spec.set_tokens(*options.tokens);
  if (options.population) spec.set_population(*options.population);
  if (options.children) spec.set_children_per_parent(*options.children);
  if (options.topk) spec.set_top_k(*options.topk);
  if (options.iterations) spec.set_iterations(*options.iterations);
  if (options.penalty_min) spec.set_penalty_min(*options.penalty_min);
  if (options.penalty_max) spec.set_penalty_max(*options.penalty_max);
  if (options.restart_every) spec.set_restart_period(*options.restart_every);
  if (options.seed) spec.set_seed(*options.seed);
  if (options.allow_special_tokens) spec.set_allow_special_tokens(true);
  if (options.restart_penalty) {
    const auto range = ParsePenaltyRange(*options.restart_penalty);
    if (!range.ok()) {
      throw CLI::ValidationError("--restart-penalty", std::string(range.status().message()));
    }
    *spec.mutable_restart_penalty() = *range;
  }
  if (options.priority) spec.set_priority(*options.priority);
  if (options.deadline) {
    const auto deadline = ParseDeadline(*options.deadline, absl::Now());
    if (!deadline.ok()) {
      throw CLI::ValidationError("--deadline", std::string(deadline.status().message()));
    }
    *spec.mutable_deadline() = ToTimestamp(*deadline);
  }
  if (options.history) spec.set_history(*options.history == "full" ? v1::FULL : v1::FRONTIER);
  for (auto& [prompt, flag] :
       CollectPrompts(options.app, options.initial_text, options.initial_ids)) {
    *spec.add_initial_prompts() = prompt;
    prompt_flags.push_back(flag);
  }
  return request;
}

// The request's id makes it safe to ask again when it is unknown whether the server heard.
grpc::Status Create(Client& client, const v1::CreateJobRequest& request, v1::Job* job) {
  grpc::Status status = client.Call(&Client::Stub::CreateJob, request, job);
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return status;
  absl::SleepFor(absl::Seconds(1));
  return client.Call(&Client::Stub::CreateJob, request, job);
}

int Submit(Session& session, const SubmitOptions& options) {
  std::vector<std::string> prompt_flags;
  const v1::CreateJobRequest request = ToRequest(options, prompt_flags);
  std::unique_ptr<Follow> follow;
  if (options.watch || options.wait) {
    follow =
        std::make_unique<Follow>(session, options.watch ? FollowMode::kWatch : FollowMode::kWait);
  }
  v1::Job job;
  if (const grpc::Status status = Create(session.client(), request, &job); !status.ok()) {
    return ReportError(status, session.settings().server, prompt_flags);
  }
  const std::string id = Escape(job.id());
  if (follow != nullptr) {
    std::fprintf(stderr, "submitted %s\n", id.c_str());
    return follow->Run(job, /*after_sequence=*/0);
  }
  if (session.table()) {
    Print(id + "\n");
    std::fprintf(stderr, "submitted; epo watch %s follows it\n", id.c_str());
  } else {
    PrintValue(ToJson(job), session.settings().format);
  }
  return kDone;
}

}  // namespace

void AddSubmit(Commands& commands) {
  const auto o = std::make_shared<SubmitOptions>();
  CLI::App* app = commands.Add("submit", "Start a search for prompts that excite a neuron",
                               "Example: epo submit --layer 8 --neuron 12 --iterations 100 --watch",
                               [o](Session& session) { return Submit(session, *o); });
  o->app = app;
  app->add_option("--layer", o->layer, "Layer, from 0")
      ->transform(Int32())
      ->required()
      ->option_text("L");
  app->add_option("--neuron", o->neuron, "Neuron of the layer's MLP, from 0")
      ->transform(Int32())
      ->required()
      ->option_text("K");
  app->add_option("--tokens", o->tokens, "Tokens a prompt (12)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--population", o->population, "Prompts kept, each with its own penalty (8)")
      ->transform(Int32())
      ->option_text("M");
  app->add_option("--children", o->children, "Mutations of each prompt an iteration (32)")
      ->transform(Int32())
      ->option_text("R");
  app->add_option("--topk", o->topk, "Replacements are drawn from the best K tokens (512)")
      ->transform(Int32())
      ->option_text("K");
  app->add_option("--iterations", o->iterations, "Iterations (300)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--penalty-min", o->penalty_min, "Least cross-entropy penalty (0.1)")
      ->transform(Number())
      ->option_text("X");
  app->add_option("--penalty-max", o->penalty_max, "Largest cross-entropy penalty (10)")
      ->transform(Number())
      ->option_text("X");
  app->add_option("--restart-every", o->restart_every, "Iterations between restarts, 0: never (50)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--restart-penalty", o->restart_penalty, "Penalty of a restart, X or LO:HI (2.0)")
      ->option_text("X");
  app->add_option("--seed", o->seed, "Seed of the random generator (0)")
      ->transform(Uint64())
      ->option_text("N");
  o->initial_text =
      AddPromptOption(app, "--initial-text", "Start from a text; once, or once a prompt kept")
          ->option_text("TEXT");
  o->initial_ids =
      AddPromptOption(app, "--initial-ids", "Start from token ids, as in 1,2,3; likewise")
          ->option_text("IDS");
  app->add_flag("--allow-special-tokens", o->allow_special_tokens,
                "Let special tokens be proposed");
  app->add_option("--priority", o->priority, "0 to 100; ten more is twice the share (50)")
      ->transform(Int32())
      ->option_text("N");
  app->add_option("--deadline", o->deadline, "When it ends at the latest: a time, or as in 2h")
      ->option_text("TIME");
  app->add_option("--history", o->history, "What is kept of each iteration: full or frontier")
      ->check(CLI::IsMember({"full", "frontier"}).description(""))
      ->option_text("KIND");
  app->add_option("--request-id", o->request_id, "A repeat under one UUID makes no second job")
      ->option_text("UUID");
  CLI::Option* watch = app->add_flag("--watch", o->watch, "Follow the job and print its frontier");
  app->add_flag("--wait", o->wait, "Wait for the job's end and print the job")->excludes(watch);
}

}  // namespace epo::cli
