#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/follow.h"
#include "client/cli/job_flags.h"
#include "client/cli/json.h"
#include "client/cli/objective_flags.h"
#include "client/cli/output.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

struct SubmitOptions {
  ObjectiveFlags objective;
  // Absent: the server's default.
  std::optional<uint64_t> seed;
  JobFlags job;
  bool watch = false;
  bool wait = false;
  bool dry_run = false;
  std::string init_from;
};

v1::CreateJobRequest ToRequest(const SubmitOptions& options, ObjectiveRequest objective,
                               std::vector<std::string>& prompt_flags) {
  v1::CreateJobRequest request;
  request.set_request_id(RequestId(options.job));
  v1::JobSpec& spec = *request.mutable_spec();
  spec = ToJobSpec(options.job, prompt_flags);
  *spec.mutable_objective() = std::move(objective.objective);
  SetContexts(std::move(objective.contexts), spec);
  spec.set_initial_job(options.init_from);
  if (options.seed) spec.set_seed(*options.seed);
  request.set_validate_only(options.dry_run);
  return request;
}

// What a job would be and cost.
void PrintDryRun(const Session& session, const v1::Job& job) {
  if (!session.table()) return PrintValue(ToJson(job), session.settings().format);
  const v1::JobSpec& spec = job.spec();
  const int64_t prompts = int64_t{spec.population()} * (1 + spec.children_per_parent());
  std::string cost =
      absl::StrCat("a step scores ", prompts, " prompts, ", job.step_rows(), " rows");
  if (job.has_estimated_step_seconds()) {
    const double seconds = job.estimated_step_seconds();
    absl::StrAppend(&cost, ", about ", absl::StrFormat("%.3g", seconds), " s; all ",
                    spec.iterations(), " about ",
                    DurationText(absl::Seconds(seconds * spec.iterations())));
  } else {
    absl::StrAppend(&cost, "; the server has run no step of about that size yet to judge by");
  }
  Print(absl::StrCat(Pretty(ToJson(spec)), "\n", cost, "\n"));
}

int Submit(Session& session, const SubmitOptions& options) {
  std::vector<std::string> prompt_flags;
  grpc::Status status;
  ObjectiveRequest objective = ReadObjective(options.objective, session, &status);
  if (!status.ok()) return ReportError(status, session.settings().server);
  const std::vector<std::string> term_flags = std::move(objective.term_flags);
  const v1::CreateJobRequest request = ToRequest(options, std::move(objective), prompt_flags);
  std::unique_ptr<Follow> follow;
  if (!options.dry_run && (options.watch || options.wait)) {
    follow =
        std::make_unique<Follow>(session, options.watch ? FollowMode::kWatch : FollowMode::kWait);
  }
  v1::Job job;
  status = session.client().CallTwice(&Client::Stub::CreateJob, request, &job);
  if (!status.ok()) {
    return ReportError(status, session.settings().server, prompt_flags, term_flags);
  }
  if (options.dry_run) {
    PrintDryRun(session, job);
    return kDone;
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
  CLI::App* app = commands.Add("submit", "Start a search for prompts that excite a neuron, ...",
                               "Example: epo submit --neuron 8:12 --iterations 100 --watch",
                               [o](Session& session) { return Submit(session, *o); });
  AddObjectiveFlags(app, o->objective);
  app->add_option("--seed", o->seed, "Seed of the random generator (0)")
      ->transform(Uint64())
      ->option_text("N");
  AddJobFlags(app, o->job);
  app->add_option("--init-from", o->init_from, "Start from the frontier of this job")
      ->option_text("JOB")
      ->group(kStartTopic);
  CLI::Option* watch = app->add_flag("--watch", o->watch, "Follow the job and print its frontier");
  app->add_flag("--wait", o->wait, "Wait for the job's end and print the job")->excludes(watch);
  app->add_flag("--dry-run", o->dry_run, "Only check the job, and tell what a step costs");
}

}  // namespace epo::cli
