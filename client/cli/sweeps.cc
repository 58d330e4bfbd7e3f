#include "client/cli/sweeps.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "client/cli/csv.h"
#include "client/cli/errors.h"
#include "client/cli/json.h"
#include "client/cli/objective_text.h"
#include "client/cli/output.h"
#include "client/cli/sweep_follow.h"
#include "client/cli/sweep_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

int PrintSweep(const Session& session, const v1::Sweep& sweep) {
  if (session.table()) {
    Print(JoinLines(SweepLines(sweep)));
  } else {
    PrintValue(ToJson(sweep), session.settings().format);
  }
  return kDone;
}

// Shows the points as they come.
class PointPrinter {
 public:
  explicit PointPrinter(const Session& session)
      : session_(session), json_("points", session.settings().format) {
    if (format() == Format::kCsv) {
      std::vector<std::string> columns = {"objective_index", "objective", "seed", "job"};
      columns.insert(columns.end(), kPromptColumns.begin(), kPromptColumns.end());
      Print(CsvLine(columns));
    }
  }

  // Whether no objective had a point.
  bool empty() const { return empty_; }

  void Add(const v1::ObjectiveFrontier& objective) {
    empty_ = empty_ && objective.points().empty();
    for (const auto& point : objective.points()) {
      if (session_.table()) {
        rows_.push_back(SweepPointRow(objective, point));
      } else if (format() == Format::kCsv) {
        std::vector<std::string> cells = {std::to_string(objective.objective_index()),
                                          ObjectiveText(objective.objective()),
                                          std::to_string(point.seed()), point.job()};
        for (std::string& cell : CsvCells(point.prompt(), session_.terminal().stdout_is_terminal)) {
          cells.push_back(std::move(cell));
        }
        Print(CsvLine(cells));
      } else {
        json_.Add(SweepPointJson(objective, point));
      }
    }
  }

  void Finish() {
    if (session_.table()) {
      if (empty_) return;
      Print(JoinLines(TableLines({{"index", true},
                                  {"objective"},
                                  {"seed", true},
                                  {"target", true},
                                  {"cross-entropy", true},
                                  {"prompt"}},
                                 rows_, 0, session_.terminal().color_stdout)));
    } else if (format() != Format::kCsv) {
      json_.Finish();
    }
  }

 private:
  Format format() const { return session_.settings().format; }

  const Session& session_;
  ListPrinter json_;
  std::vector<std::vector<std::string>> rows_;
  bool empty_ = true;
};

}  // namespace

bool IsPending(const v1::Sweep& sweep) { return ExitCodeOf(sweep.state()) == kJobPending; }

int ExitCodeOf(v1::Sweep::State state) {
  switch (state) {
    case v1::Sweep::SUCCEEDED:
      return kDone;
    case v1::Sweep::FAILED:
      return kJobFailed;
    case v1::Sweep::CANCELLED:
      return kJobCancelled;
    default:
      return kJobPending;
  }
}

int GetSweep(Session& session, const std::string& id) {
  v1::GetSweepRequest request;
  request.set_id(id);
  v1::Sweep sweep;
  const grpc::Status status = session.client().Call(&Client::Stub::GetSweep, request, &sweep);
  if (!status.ok()) return ReportError(status, session.settings().server);
  return PrintSweep(session, sweep);
}

int CancelSweep(Session& session, const std::string& id) {
  v1::CancelSweepRequest request;
  request.set_id(id);
  v1::Sweep sweep;
  const grpc::Status status = session.client().Call(&Client::Stub::CancelSweep, request, &sweep);
  if (!status.ok()) return ReportError(status, session.settings().server);
  return PrintSweep(session, sweep);
}

int DeleteSweep(Session& session, const std::string& id) {
  v1::DeleteSweepRequest request;
  request.set_id(id);
  google::protobuf::Empty empty;
  // Histories of many jobs take a while.
  const grpc::Status status =
      session.client().Call(&Client::Stub::DeleteSweep, request, &empty, absl::Minutes(5));
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (session.table()) {
    std::fprintf(stderr, "deleted %s\n", Escape(id).c_str());
  } else {
    PrintValue({{"id", id}}, session.settings().format);
  }
  return kDone;
}

int FollowSweep(Session& session, const std::string& id, FollowMode mode) {
  SweepFollow follow(session, mode);
  v1::GetSweepRequest request;
  request.set_id(id);
  v1::Sweep sweep;
  const grpc::Status status = session.client().Call(&Client::Stub::GetSweep, request, &sweep);
  if (!status.ok()) return ReportError(status, session.settings().server);
  return follow.Run(sweep);
}

int ShowSweepFrontier(Session& session, const std::string& id, bool full) {
  if (const grpc::Status status = session.client().Connect(); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  v1::GetSweepFrontierRequest request;
  request.set_id(id);
  request.set_kind(full ? v1::PARETO : v1::LAMBDA);
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().GetSweepFrontier(&context, request);
  PointPrinter printer(session);
  v1::ObjectiveFrontier objective;
  while (reader->Read(&objective)) printer.Add(objective);
  if (const grpc::Status status = reader->Finish(); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  printer.Finish();
  if (printer.empty()) {
    std::fprintf(stderr, "the frontiers of %s are empty; epo list --sweep %s shows its jobs\n",
                 Escape(id).c_str(), Escape(id).c_str());
  }
  return kDone;
}

}  // namespace epo::cli
