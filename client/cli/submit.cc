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
#include "client/cli/output.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

struct SubmitOptions {
  int32_t layer = 0;
  int32_t neuron = 0;
  // Absent: the server's default.
  std::optional<uint64_t> seed;
  JobFlags job;
  bool watch = false;
  bool wait = false;
};

v1::CreateJobRequest ToRequest(const SubmitOptions& options,
                               std::vector<std::string>& prompt_flags) {
  v1::CreateJobRequest request;
  request.set_request_id(RequestId(options.job));
  v1::JobSpec& spec = *request.mutable_spec();
  spec = ToJobSpec(options.job, prompt_flags);
  spec.mutable_objective()->mutable_neuron()->set_layer(options.layer);
  spec.mutable_objective()->mutable_neuron()->set_neuron(options.neuron);
  if (options.seed) spec.set_seed(*options.seed);
  return request;
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
  const grpc::Status status = session.client().CallTwice(&Client::Stub::CreateJob, request, &job);
  if (!status.ok()) return ReportError(status, session.settings().server, prompt_flags);
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
  app->add_option("--layer", o->layer, "Layer, from 0")
      ->transform(Int32())
      ->required()
      ->option_text("L");
  app->add_option("--neuron", o->neuron, "Neuron of the layer's MLP, from 0")
      ->transform(Int32())
      ->required()
      ->option_text("K");
  app->add_option("--seed", o->seed, "Seed of the random generator (0)")
      ->transform(Uint64())
      ->option_text("N");
  AddJobFlags(app, o->job);
  CLI::Option* watch = app->add_flag("--watch", o->watch, "Follow the job and print its frontier");
  app->add_flag("--wait", o->wait, "Wait for the job's end and print the job")->excludes(watch);
}

}  // namespace epo::cli
