#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/job_flags.h"
#include "client/cli/json.h"
#include "client/cli/objective_arguments.h"
#include "client/cli/objective_flags.h"
#include "client/cli/output.h"
#include "client/cli/sweep_arguments.h"
#include "client/cli/sweep_follow.h"
#include "client/cli/sweep_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

constexpr int kMostPerPage = 100;

// Objectives that are given one by one; more than any server takes as one sweep by default.
constexpr int64_t kMostExpanded = 100'000;

struct SweepOptions {
  std::vector<std::string> neurons;
  std::vector<std::string> directions;
  std::vector<std::string> files;
  bool standardized = false;
  ReadingFlags reading;
  ContextFlags contexts;
  std::vector<std::string> seeds;
  JobFlags job;
  bool watch = false;
  bool wait = false;
};

template <class Value>
Value Must(const char* flag, absl::StatusOr<Value> value) {
  if (!value.ok()) throw CLI::ValidationError(flag, std::string(value.status().message()));
  return *std::move(value);
}

// Puts what the sweep searches for into `spec`. `flags` says which flag gave each of the objectives
// that are given one by one.
void SetObjectives(const SweepOptions& options, v1::SweepSpec& spec,
                   std::vector<std::string>& flags) {
  if (options.neurons.empty() && options.directions.empty() && options.files.empty()) {
    throw CLI::RequiredError("--neurons, --directions or --objective");
  }
  if (options.standardized && options.directions.empty()) {
    throw CLI::ValidationError("--standardized", "is said of --directions, and there are none");
  }
  for (const std::string& text : options.neurons) {
    for (const v1::NeuronRange& range : Must("--neurons", ParseNeurons(text))) {
      *spec.add_neurons() = range;
    }
  }
  for (const std::string& text : options.directions) {
    v1::DirectionRange& range = *spec.add_directions();
    range = Must("--directions", ParseDirections(text));
    range.mutable_direction()->set_standardized(options.standardized);
  }
  for (const std::string& file : options.files) {
    *spec.add_objectives() = Must("--objective", ReadObjectiveFile(file));
    flags.emplace_back("--objective");
  }
  const auto& [position, minimize] = options.reading;
  if (!position && !minimize) return;
  if (!options.files.empty()) {
    throw CLI::ValidationError("--objective",
                               "says all of it; leave --position and --minimize out");
  }
  if (const int64_t count = RangedObjectives(spec); count > kMostExpanded) {
    throw CLI::ValidationError(
        position ? "--position" : "--minimize",
        absl::StrCat("is said of ", count, " objectives, and may be of ", kMostExpanded));
  }
  std::optional<v1::Position> where;
  if (position) where = Must("--position", ParsePosition(*position));
  ExpandRanges(spec, where, minimize, flags);
}

v1::CreateSweepRequest ToRequest(const SweepOptions& options, ContextRequest contexts,
                                 std::vector<std::string>& prompt_flags,
                                 std::vector<std::string>& objective_flags) {
  v1::CreateSweepRequest request;
  request.set_request_id(RequestId(options.job));
  v1::SweepSpec& spec = *request.mutable_spec();
  *spec.mutable_job() = ToJobSpec(options.job, prompt_flags);
  SetContexts(std::move(contexts), *spec.mutable_job());
  SetObjectives(options, spec, objective_flags);
  for (const std::string& text : options.seeds) {
    for (const uint64_t seed : Must("--seeds", ParseSeeds(text))) spec.add_seeds(seed);
  }
  return request;
}

int CreateSweep(Session& session, const SweepOptions& options) {
  std::vector<std::string> prompt_flags;
  std::vector<std::string> objective_flags;
  grpc::Status status;
  ContextRequest contexts = ReadContexts(options.contexts, session, &status);
  if (!status.ok()) return ReportError(status, session.settings().server);
  const v1::CreateSweepRequest request =
      ToRequest(options, std::move(contexts), prompt_flags, objective_flags);
  std::unique_ptr<SweepFollow> follow;
  if (options.watch || options.wait) {
    follow = std::make_unique<SweepFollow>(session,
                                           options.watch ? FollowMode::kWatch : FollowMode::kWait);
  }
  v1::Sweep sweep;
  status = session.client().CallTwice(&Client::Stub::CreateSweep, request, &sweep);
  if (!status.ok()) {
    return ReportError(status, session.settings().server, prompt_flags, objective_flags);
  }
  const std::string id = Escape(sweep.id());
  const std::string what = absl::StrCat(AllJobs(sweep), " jobs, ", SweepSizeText(sweep));
  if (follow != nullptr) {
    std::fprintf(stderr, "submitted %s: %s\n", id.c_str(), what.c_str());
    return follow->Run(sweep);
  }
  if (session.table()) {
    Print(id + "\n");
    std::fprintf(stderr, "submitted %s; epo watch %s follows it\n", what.c_str(), id.c_str());
  } else {
    PrintValue(ToJson(sweep), session.settings().format);
  }
  return kDone;
}

std::vector<std::string> ListRow(const v1::Sweep& sweep, absl::Time now) {
  return {Escape(sweep.id()),
          v1::Sweep::State_Name(sweep.state()),
          absl::StrCat(sweep.completed_iterations(), "/", sweep.total_iterations()),
          DurationText(now - ToTime(sweep.create_time())),
          SweepSizeText(sweep),
          JobCountsText(sweep.jobs())};
}

int ListSweeps(Session& session, int limit) {
  v1::ListSweepsRequest request;
  std::vector<std::vector<std::string>> rows;
  ListPrinter printer("sweeps", session.settings().format);
  const absl::Time now = absl::Now();
  int left = limit > 0 ? limit : std::numeric_limits<int>::max();
  do {
    request.set_page_size(std::min(left, kMostPerPage));
    v1::ListSweepsResponse page;
    const grpc::Status status = session.client().Call(&Client::Stub::ListSweeps, request, &page);
    if (!status.ok()) return ReportError(status, session.settings().server);
    for (const v1::Sweep& sweep : page.sweeps()) {
      if (left-- == 0) break;
      if (session.table()) {
        rows.push_back(ListRow(sweep, now));
      } else {
        printer.Add(ToJson(sweep));
      }
    }
    request.set_page_token(page.next_page_token());
  } while (left > 0 && !request.page_token().empty());
  if (!session.table()) {
    printer.Finish();
  } else if (rows.empty()) {
    std::fprintf(stderr, "no sweeps\n");
  } else {
    Print(JoinLines(
        TableLines({{"sweep"}, {"state"}, {"step", true}, {"age", true}, {"size"}, {"jobs"}}, rows,
                   0, session.terminal().color_stdout)));
  }
  return kDone;
}

}  // namespace

void AddSweep(Commands& commands) {
  const auto o = std::make_shared<SweepOptions>();
  CLI::App* app = commands.Add("sweep", "Start a search for each of many neurons and seeds",
                               "Example: epo sweep --neurons 8:0-63 --seeds 0-4 --watch",
                               [o](Session& session) { return CreateSweep(session, *o); });
  app->add_option("--neurons", o->neurons, "Neurons of a layer, as in 8:0-63 or 8:5,9; repeatable")
      ->allow_extra_args(false)
      ->option_text("L:K");
  app->add_option("--directions", o->directions,
                  "Rows of an uploaded matrix: v...:0-63@12; repeatable")
      ->allow_extra_args(false)
      ->option_text("V:K@L");
  std::vector<CLI::Option*> topic;
  topic.push_back(app->add_flag("--standardized", o->standardized,
                                "--directions of the stream with mean 0, standard deviation 1"));
  AddReadingFlags(app, o->reading, topic);
  topic.push_back(app->add_option("--objective", o->files,
                                  "An objective as JSON, an epo.v1.Objective; repeatable")
                      ->allow_extra_args(false)
                      ->option_text("FILE"));
  AddContextFlags(app, o->contexts, topic);
  AddTopic(app, kObjectiveTopic, "Of objectives: --minimize, --position, --prefix, ...", topic);
  app->add_option("--seeds", o->seeds, "Seeds, as in 0-4 or 1,5 (0)")
      ->allow_extra_args(false)
      ->option_text("N");
  AddJobFlags(app, o->job);
  CLI::Option* watch = app->add_flag("--watch", o->watch, "Follow it and print all frontiers");
  app->add_flag("--wait", o->wait, "Wait for its end and print the sweep")->excludes(watch);

  const auto limit = std::make_shared<int>(0);
  commands
      .Add("sweeps", "List sweeps, the newest first", "Example: epo sweeps -o jsonl",
           [limit](Session& session) { return ListSweeps(session, *limit); })
      ->add_option("--limit", *limit, "At most so many sweeps (all)")
      ->transform(Int32(1))
      ->option_text("N");
}

}  // namespace epo::cli
