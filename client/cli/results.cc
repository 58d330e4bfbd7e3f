#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "client/cli/command.h"
#include "client/cli/csv.h"
#include "client/cli/errors.h"
#include "client/cli/frame.h"
#include "client/cli/json.h"
#include "client/cli/output.h"
#include "client/cli/sweep_text.h"
#include "client/cli/sweeps.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

// The full Pareto set of a long history takes the server a while.
constexpr absl::Duration kFrontierTimeout = absl::Minutes(5);

// Says that the job's frontier is empty, and why.
void TellEmpty(Session& session, const std::string& id) {
  v1::GetJobRequest request;
  request.set_id(id);
  v1::Job job;
  // What it is asked for is but a notice.
  if (!session.client().Call(&Client::Stub::GetJob, request, &job).ok()) return;
  std::string line = EmptyFrontierLine(job);
  if (job.has_error()) {
    absl::StrAppend(&line, "; it is ", v1::Job::State_Name(job.state()), ": ",
                    Escape(job.error().message()));
  }
  std::fprintf(stderr, "%s\n", line.c_str());
}

int ShowFrontier(Session& session, const std::string& id, bool full) {
  if (IsSweepId(id)) return ShowSweepFrontier(session, id, full);
  v1::GetFrontierRequest request;
  request.set_id(id);
  request.set_kind(full ? v1::PARETO : v1::LAMBDA);
  v1::Frontier frontier;
  const grpc::Status status =
      session.client().Call(&Client::Stub::GetFrontier, request, &frontier, kFrontierTimeout);
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (frontier.points().empty()) TellEmpty(session, id);
  if (session.table()) {
    if (frontier.points().empty()) return kDone;
    Print(JoinLines(FrontierLines(frontier, 0, 0, session.terminal().color_stdout)));
    return kDone;
  }
  if (session.settings().format == Format::kCsv) {
    Print(CsvLine({kPromptColumns.begin(), kPromptColumns.end()}));
    for (const auto& point : frontier.points()) {
      Print(CsvLine(CsvCells(point, session.terminal().stdout_is_terminal)));
    }
    return kDone;
  }
  ListPrinter printer("points", session.settings().format);
  for (const auto& point : frontier.points()) printer.Add(ToJson(point));
  printer.Finish();
  return kDone;
}

// The iteration in one line: its pool, and of the survivors how many differ and which has the
// highest target.
std::vector<std::string> IterationRow(const v1::Iteration& iteration) {
  const std::set<int> kept(iteration.keep().begin(), iteration.keep().end());
  int best = -1;
  for (const int index : kept) {
    if (index < 0 || index >= iteration.target_size() || index >= iteration.ids_size()) continue;
    if (best < 0 || iteration.target(index) > iteration.target(best)) best = index;
  }
  std::vector<std::string> row = {absl::StrCat(iteration.index()),
                                  absl::StrCat(iteration.ids_size()), absl::StrCat(kept.size())};
  if (best < 0) {
    row.insert(row.end(), {"-", "-", "-"});
    return row;
  }
  row.push_back(ScoreCell(iteration.target(best)));
  row.push_back(best < iteration.cross_entropy_size() ? ScoreCell(iteration.cross_entropy(best))
                                                      : "-");
  row.push_back(absl::StrJoin(iteration.ids(best).ids(), ","));
  return row;
}

int ShowHistory(Session& session, const std::string& id) {
  if (const grpc::Status status = session.client().Connect(); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  v1::GetHistoryRequest request;
  request.set_id(id);
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().GetHistory(&context, request);
  ListPrinter printer("iterations", session.settings().format);
  std::vector<std::vector<std::string>> rows;
  v1::Iteration iteration;
  while (reader->Read(&iteration)) {
    if (session.table()) {
      rows.push_back(IterationRow(iteration));
    } else {
      printer.Add(ToJson(iteration));
    }
  }
  if (const grpc::Status status = reader->Finish(); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  if (session.table()) {
    Print(JoinLines(TableLines({{"iteration", true},
                                {"pool", true},
                                {"kept", true},
                                {"best target", true},
                                {"cross-entropy", true},
                                {"ids"}},
                               rows, 0, session.terminal().color_stdout)));
  } else {
    printer.Finish();
  }
  return kDone;
}

}  // namespace

void AddResults(Commands& commands) {
  struct FrontierOptions {
    std::string id;
    bool full = false;
  };
  const auto options = std::make_shared<FrontierOptions>();
  CLI::App* frontier = commands.Add(
      "frontier", "Show the best prompts of a job or sweep so far",
      "Example: epo frontier JOB -o csv",
      [options](Session& session) { return ShowFrontier(session, options->id, options->full); });
  AddJobArgument(frontier, options->id);
  frontier->add_flag("--full", options->full, "Every prompt that no other beats in both scores");

  const auto id = std::make_shared<std::string>();
  AddJobArgument(commands.Add("history", "Show every iteration of a job and the prompts it scored",
                              "Example: epo history JOB -o jsonl > history.jsonl",
                              [id](Session& session) { return ShowHistory(session, *id); }),
                 *id);
}

}  // namespace epo::cli
