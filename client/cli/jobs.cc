#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/follow.h"
#include "client/cli/json.h"
#include "client/cli/objective_text.h"
#include "client/cli/output.h"
#include "client/cli/sweep_text.h"
#include "client/cli/sweeps.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

// Jobs carry their whole spec; a page of so many stays well below any message limit.
constexpr int kMostPerPage = 200;

int PrintJob(const Session& session, const v1::Job& job) {
  if (session.table()) {
    Print(JoinLines(JobLines(job)));
  } else {
    PrintValue(ToJson(job), session.settings().format);
  }
  return kDone;
}

int Get(Session& session, const std::string& id) {
  if (IsSweepId(id)) return GetSweep(session, id);
  v1::GetJobRequest request;
  request.set_id(id);
  v1::Job job;
  const grpc::Status status = session.client().Call(&Client::Stub::GetJob, request, &job);
  if (!status.ok()) return ReportError(status, session.settings().server);
  return PrintJob(session, job);
}

// A call that changes a job's state.
template <typename Request>
int Change(Session& session, const std::string& id,
           grpc::Status (Client::Stub::*method)(grpc::ClientContext*, const Request&, v1::Job*)) {
  Request request;
  request.set_id(id);
  v1::Job job;
  const grpc::Status status = session.client().Call(method, request, &job);
  if (!status.ok()) return ReportError(status, session.settings().server);
  return PrintJob(session, job);
}

int Pause(Session& session, const std::string& id) {
  return Change(session, id, &Client::Stub::PauseJob);
}

int Resume(Session& session, const std::string& id) {
  return Change(session, id, &Client::Stub::ResumeJob);
}

int Cancel(Session& session, const std::string& id) {
  if (IsSweepId(id)) return CancelSweep(session, id);
  return Change(session, id, &Client::Stub::CancelJob);
}

int Delete(Session& session, const std::string& id) {
  if (IsSweepId(id)) return DeleteSweep(session, id);
  v1::DeleteJobRequest request;
  request.set_id(id);
  google::protobuf::Empty empty;
  const grpc::Status status = session.client().Call(&Client::Stub::DeleteJob, request, &empty);
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (session.table()) {
    std::fprintf(stderr, "deleted %s\n", Escape(id).c_str());
  } else {
    PrintValue({{"id", id}}, session.settings().format);
  }
  return kDone;
}

int FollowJob(Session& session, const std::string& id, FollowMode mode, bool latest) {
  if (IsSweepId(id)) return FollowSweep(session, id, mode);
  Follow follow(session, mode, latest);
  v1::GetJobRequest request;
  request.set_id(id);
  v1::Job job;
  const grpc::Status status = session.client().Call(&Client::Stub::GetJob, request, &job);
  if (!status.ok()) return ReportError(status, session.settings().server);
  // Step i has the sequence number i + 1: who only waits need not be told the steps that are done.
  return follow.Run(job, mode == FollowMode::kWait ? job.completed_iterations() : 0);
}

struct ListOptions {
  std::vector<std::string> states;
  std::string sweep;
  int limit = 0;
};

std::vector<std::string> ListRow(const v1::Job& job, absl::Time now) {
  return {Escape(job.id()),
          v1::Job::State_Name(job.state()),
          absl::StrCat(job.completed_iterations(), "/", job.spec().iterations()),
          QueueText(job, now),
          DurationText(now - ToTime(job.create_time())),
          ObjectiveText(job.spec().objective())};
}

v1::ListJobsRequest ToRequest(const ListOptions& options) {
  v1::ListJobsRequest request;
  request.set_sweep(options.sweep);
  for (const std::string& name : options.states) {
    v1::Job::State state;
    if (!v1::Job::State_Parse(absl::AsciiStrToUpper(name), &state) ||
        state == v1::Job::STATE_UNSPECIFIED) {
      throw CLI::ValidationError(
          "--state",
          absl::StrCat("'", name,
                       "' is none of queued, running, paused, succeeded, failed, cancelled"));
    }
    request.add_states(state);
  }
  return request;
}

int List(Session& session, const ListOptions& options) {
  v1::ListJobsRequest request = ToRequest(options);
  std::vector<std::vector<std::string>> rows;
  ListPrinter printer("jobs", session.settings().format);
  const absl::Time now = absl::Now();
  int left = options.limit > 0 ? options.limit : std::numeric_limits<int>::max();
  do {
    request.set_page_size(std::min(left, kMostPerPage));
    v1::ListJobsResponse page;
    const grpc::Status status = session.client().Call(&Client::Stub::ListJobs, request, &page);
    if (!status.ok()) return ReportError(status, session.settings().server);
    for (const v1::Job& job : page.jobs()) {
      if (left-- == 0) break;
      if (session.table()) {
        rows.push_back(ListRow(job, now));
      } else {
        printer.Add(ToJson(job));
      }
    }
    request.set_page_token(page.next_page_token());
  } while (left > 0 && !request.page_token().empty());
  if (!session.table()) {
    printer.Finish();
  } else if (rows.empty()) {
    std::fprintf(stderr, "no jobs\n");
  } else {
    Print(JoinLines(
        TableLines({{"job"}, {"state"}, {"step", true}, {"queue"}, {"age", true}, {"objective"}},
                   rows, 0, session.terminal().color_stdout)));
  }
  return kDone;
}

// A command that takes a job and nothing else.
void AddJobCommand(Commands& commands, const std::string& name, const std::string& description,
                   int (*run)(Session&, const std::string&)) {
  const auto id = std::make_shared<std::string>();
  AddJobArgument(commands.Add(name, description, absl::StrCat("Example: epo ", name, " JOB"),
                              [id, run](Session& session) { return run(session, *id); }),
                 *id);
}

}  // namespace

void AddFollow(Commands& commands) {
  struct WatchFlags {
    std::string id;
    bool latest = false;
  };
  const auto flags = std::make_shared<WatchFlags>();
  CLI::App* watch =
      commands.Add("watch", "Follow a job or sweep; Ctrl-C leaves it running",
                   "Example: epo watch JOB", [flags](Session& session) {
                     return FollowJob(session, flags->id, FollowMode::kWatch, flags->latest);
                   });
  AddJobArgument(watch, flags->id);
  watch->add_flag("--latest", flags->latest, "Skip to the newest step when steps come too fast");
  AddJobCommand(commands, "wait", "Wait for a job's or sweep's end; the exit code tells it",
                [](Session& session, const std::string& id) {
                  return FollowJob(session, id, FollowMode::kWait, /*latest=*/true);
                });
}

void AddJobs(Commands& commands) {
  AddJobCommand(commands, "get", "Show a job or sweep", Get);
  const auto options = std::make_shared<ListOptions>();
  CLI::App* list = commands.Add("list", "List jobs, the newest first",
                                "Example: epo list --state running --state queued -o jsonl",
                                [options](Session& session) { return List(session, *options); });
  list->add_option("--state", options->states, "Only jobs in this state; may be repeated")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->option_text("STATE");
  list->add_option("--sweep", options->sweep, "Only the jobs of this sweep")->option_text("SWEEP");
  list->add_option("--limit", options->limit, "At most so many jobs (all)")
      ->transform(Int32(1))
      ->option_text("N");
  AddJobCommand(commands, "pause", "Hold a job; it keeps what it has", Pause);
  AddJobCommand(commands, "resume", "Queue a paused job again", Resume);
  AddJobCommand(commands, "cancel", "Stop a job or sweep and keep what it found", Cancel);
  AddJobCommand(commands, "delete", "Delete an ended job or sweep with its history", Delete);
}

}  // namespace epo::cli
