#include "client/cli/report.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/time/clock.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/output.h"
#include "client/cli/report_data.h"
#include "client/cli/report_fetch.h"
#include "client/cli/sweep_text.h"
#include "client/cli/text.h"
#include "client/cli/write_file.h"
#include "client/report/draw.h"

namespace epo::cli {
namespace {

using Json = nlohmann::ordered_json;

// As many as there are colours and shapes.
constexpr size_t kMostCompared = 8;

struct ReportOptions {
  std::vector<std::string> ids;
  std::string out;
  std::optional<std::string> format, figure, thresholds;
  bool compare = false;
  bool no_attribution = false;
};

// A report's data, or how the command ends without it.
struct Outcome {
  Json data;
  int exit = kDone;
};

Outcome Failed(const grpc::Status& status, Session& session) {
  return {{}, ReportError(status, session.settings().server)};
}

std::string Now() {
  return absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone());
}

// A job of which there is nothing to tell yet. The exit code says whether there will be.
Outcome NoSteps(const v1::Job& job) {
  const int exit = ExitCodeOf(job.state());
  std::fprintf(stderr, "epo: %s is %s and has no steps%s\n", Escape(job.id()).c_str(),
               v1::Job::State_Name(job.state()).c_str(),
               exit == kJobPending ? " yet; epo watch shows when the first is done"
                                   : ", so there is nothing to report");
  return {{}, exit};
}

// Of a job that has steps to come.
void TellPartial(const v1::Job& job) {
  if (ExitCodeOf(job.state()) != kJobPending) return;
  std::fprintf(stderr, "a partial report: %s is %s after %d of %d iterations\n",
               Escape(job.id()).c_str(), v1::Job::State_Name(job.state()).c_str(),
               job.completed_iterations(), job.spec().iterations());
}

Outcome ReportJob(Session& session, const ReportOptions& options, const std::string& id,
                  bool page) {
  JobReport report;
  std::vector<double> thresholds;
  if (options.thresholds) thresholds = ParseThresholds(*options.thresholds).value();
  grpc::Status status = FetchJob(session, id, &report.job);
  if (!status.ok()) return Failed(status, session);
  if (report.job.completed_iterations() == 0) return NoSteps(report.job);
  if (status = FetchServer(session, &report.server); !status.ok()) return Failed(status, session);
  if (status = FetchRun(session, thresholds, report); !status.ok()) return Failed(status, session);
  if (page && !options.no_attribution && report.frontier.points_size() > 0) {
    status = FetchAttributions(session, report);
    if (!status.ok()) return Failed(status, session);
  }
  TellPartial(report.job);
  return {JobReportJson(report, Now())};
}

Outcome CompareJobs(Session& session, const ReportOptions& options) {
  std::vector<ComparedJob> jobs(options.ids.size());
  grpc::Status status;
  for (size_t i = 0; i < jobs.size(); ++i) {
    status = FetchJob(session, options.ids[i], &jobs[i].job);
    if (!status.ok()) return Failed(status, session);
    if (jobs[i].job.completed_iterations() == 0) return NoSteps(jobs[i].job);
    status = FetchFrontier(session, options.ids[i], v1::LAMBDA, &jobs[i].frontier);
    if (!status.ok()) return Failed(status, session);
  }
  v1::GetServerInfoResponse server;
  if (status = FetchServer(session, &server); !status.ok()) return Failed(status, session);
  for (const ComparedJob& compared : jobs) TellPartial(compared.job);
  return {CompareReportJson(jobs, server, Now())};
}

Outcome ReportSweep(Session& session, const ReportOptions& options) {
  v1::Sweep sweep;
  std::vector<v1::ObjectiveFrontier> objectives;
  grpc::Status status = FetchSweep(session, options.ids[0], &sweep, &objectives);
  if (!status.ok()) return Failed(status, session);
  if (sweep.completed_iterations() == 0) {
    std::fprintf(stderr, "epo: no job of %s has a step%s\n", Escape(sweep.id()).c_str(),
                 EndedJobs(sweep) < AllJobs(sweep) ? " yet" : ", so there is nothing to report");
    return {{}, EndedJobs(sweep) < AllJobs(sweep) ? kJobPending : kJobFailed};
  }
  v1::GetServerInfoResponse server;
  if (status = FetchServer(session, &server); !status.ok()) return Failed(status, session);
  std::map<std::string, std::string> links;
  const std::filesystem::path folder = std::filesystem::path(options.out).parent_path();
  for (const auto& objective : objectives) {
    for (const auto& point : objective.points()) {
      const std::string name = absl::StrCat(point.job(), ".html");
      std::error_code error;
      if (std::filesystem::exists(folder / name, error)) links[point.job()] = name;
    }
  }
  if (EndedJobs(sweep) < AllJobs(sweep)) {
    std::fprintf(stderr, "a partial report: %d of %d jobs of %s have ended\n", EndedJobs(sweep),
                 AllJobs(sweep), Escape(sweep.id()).c_str());
  }
  return {SweepReportJson(sweep, objectives, links, server, Now())};
}

// --format, or what the file's name ends in.
std::string FormatOf(const ReportOptions& options) {
  if (options.format) return *options.format;
  for (const char* format : {"svg", "png"}) {
    if (absl::EndsWithIgnoreCase(options.out, absl::StrCat(".", format))) return format;
  }
  return "html";
}

// Throws CLI::ValidationError for flags that do not go together.
void Check(const ReportOptions& options, const std::string& format) {
  const auto refuse = [](const char* flag, const std::string& why) {
    throw CLI::ValidationError(flag, why);
  };
  if (options.out.empty()) refuse("--out", "is empty; give the name of a file");
  if (options.ids.size() > 1 && !options.compare) {
    refuse("JOB", "one job or sweep is wanted; several go with --compare");
  }
  if (options.compare && (options.ids.size() < 2 || options.ids.size() > kMostCompared)) {
    refuse("--compare",
           absl::StrCat("takes 2 to ", kMostCompared, " jobs, not ", options.ids.size()));
  }
  std::set<std::string> compared;
  for (const std::string& id : options.ids) {
    if (!compared.insert(id).second) {
      refuse("--compare", absl::StrCat("takes each job once, and has ", Escape(id), " twice"));
    }
  }
  bool sweep = false;
  for (const std::string& id : options.ids) sweep |= IsSweepId(id);
  if (options.compare && sweep) refuse("--compare", "takes jobs, not sweeps");
  if (sweep && format != "html") refuse("--format", "a sweep's report is a page: html");
  if (options.figure && format == "html") refuse("--figure", "goes with --format svg or png");
  if (options.figure && options.compare && *options.figure != "frontier") {
    refuse("--figure", "of --compare there is the frontier alone");
  }
  if (options.thresholds) {
    if (sweep || options.compare) refuse("--thresholds", "goes with one job");
    const auto thresholds = ParseThresholds(*options.thresholds);
    if (!thresholds.ok()) refuse("--thresholds", std::string(thresholds.status().message()));
  }
}

absl::StatusOr<std::string> Draw(const ReportOptions& options, const Json& data,
                                 const std::string& format) {
  if (format == "html") return ReportPage(data);
  const std::string figure = options.compare ? "overlay" : options.figure.value_or("frontier");
  auto svg = report::DrawSvg(figure, EmbeddedJson(data), data["title"].get<std::string>(),
                             data.value("subtitle", ""));
  return svg.ok() && format == "png" ? report::ToPng(*svg) : svg;
}

int LocalError(const absl::Status& status) {
  std::fprintf(stderr, "epo: %s\n", Escape(std::string(status.message())).c_str());
  return kUsage;
}

int Report(Session& session, const ReportOptions& options) {
  const std::string format = FormatOf(options);
  Check(options, format);
  if (absl::Status status = CheckWritable(options.out); !status.ok()) return LocalError(status);
  if (const grpc::Status status = session.client().Connect(); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  const Outcome outcome = options.compare ? CompareJobs(session, options)
                          : IsSweepId(options.ids[0])
                              ? ReportSweep(session, options)
                              : ReportJob(session, options, options.ids[0], format == "html");
  if (outcome.exit != kDone) return outcome.exit;
  const auto content = Draw(options, outcome.data, format);
  if (!content.ok()) return LocalError(content.status());
  if (absl::Status status = WriteFile(options.out, *content); !status.ok()) {
    return LocalError(status);
  }
  if (session.table()) {
    std::fprintf(stderr, "%s: %.1f kB\n", Escape(options.out).c_str(), content->size() / 1e3);
  } else {
    PrintValue({{"file", options.out}, {"bytes", content->size()}}, session.settings().format);
  }
  return kDone;
}

}  // namespace

void AddReport(Commands& commands) {
  const auto options = std::make_shared<ReportOptions>();
  CLI::App* app = commands.Add("report", "Write a job's or sweep's figures as a page or image",
                               "Example: epo report JOB --out report.html",
                               [options](Session& session) { return Report(session, *options); });
  app->add_option("--out", options->out, "The file")->required()->option_text("FILE");
  app->add_flag("--compare", options->compare, "Lay the frontiers of several jobs over each other");
  app->add_flag("--no-attribution", options->no_attribution,
                "Leave out what each token is worth, which takes the model");
  app->add_option("--thresholds", options->thresholds,
                  "Cross-entropies to show the best target under")
      ->option_text("X,...");
  app->add_option("--format", options->format, "html, svg or png; as the file's name says")
      ->check(CLI::IsMember({"html", "svg", "png"}))
      ->option_text("FORMAT");
  app->add_option("--figure", options->figure, "Of svg and png: frontier, evolution or thresholds")
      ->check(CLI::IsMember({"frontier", "evolution", "thresholds"}))
      ->option_text("NAME");
  app->add_option("JOB", options->ids, "The id of a job or sweep; several with --compare")
      ->required()
      ->option_text(" ");
}

}  // namespace epo::cli
