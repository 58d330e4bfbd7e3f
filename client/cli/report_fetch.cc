#include "client/cli/report_fetch.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <cstdio>
#include <functional>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

// The full Pareto set of a long history takes the server a while.
constexpr absl::Duration kFrontierTimeout = absl::Minutes(5);
// Tries to attribute a prompt whose place on the frontier of a running job changes meanwhile.
constexpr int kAttempts = 3;

using Ids = google::protobuf::RepeatedField<int32_t>;

bool Equal(const Ids& a, const Ids& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// The steps up to the last completed one: the telling frontiers, the restarts, the last frontier.
grpc::Status FetchSteps(Session& session, JobReport& report) {
  const int completed = report.job.completed_iterations();
  const std::vector<int> telling = TellingIterations(completed);
  v1::WatchJobRequest request;
  request.set_id(report.job.id());
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().WatchJob(&context, request);
  v1::WatchJobResponse response;
  bool last = false;
  while (!last && reader->Read(&response)) {
    if (!response.has_step()) continue;
    const v1::Step& step = response.step();
    const int done = step.index() + 1;
    if (step.has_restart_penalty()) report.restarts.push_back(done);
    if (std::binary_search(telling.begin(), telling.end(), done)) {
      report.evolution[done] = step.frontier();
    }
    last = done >= completed;
  }
  if (last) {
    // The watch of a job that goes on would, too.
    context.TryCancel();
    reader->Finish();
    report.frontier = response.step().frontier();
    return grpc::Status::OK;
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? grpc::Status(grpc::StatusCode::DATA_LOSS, "the job's steps end early")
                     : status;
}

grpc::Status FetchHistory(Session& session, JobReport& report) {
  v1::GetHistoryRequest request;
  request.set_id(report.job.id());
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().GetHistory(&context, request);
  v1::Iteration iteration;
  while (reader->Read(&iteration)) {
    if (iteration.index() < report.job.completed_iterations()) report.best.Add(iteration);
  }
  return reader->Finish();
}

// The attribution of the frontier's point `index`, or none when another prompt stands there now.
// `begin` is called before each of its tokens is asked for, with the token's index.
grpc::Status Attribute(Session& session, const std::string& job, int index, const Ids& ids,
                       const std::function<void(int)>& begin, Attribution& tokens) {
  tokens.clear();
  begin(0);
  v1::AttributeRequest request;
  request.mutable_point()->set_job(job);
  request.mutable_point()->set_index(index);
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().Attribute(&context, request);
  v1::AttributeResponse response;
  while (reader->Read(&response)) {
    if (response.has_prompt() && !Equal(response.prompt().ids(), ids)) {
      context.TryCancel();
      reader->Finish();
      return grpc::Status::OK;
    }
    if (!response.has_token()) continue;
    tokens.push_back(response.token());
    if (static_cast<int>(tokens.size()) < ids.size()) begin(static_cast<int>(tokens.size()));
  }
  return reader->Finish();
}

// The same wherever on the frontier the prompt now is; none when it is no longer on it.
grpc::Status AttributePrompt(Session& session, const std::string& job, int index, const Ids& ids,
                             const std::function<void(int)>& begin, Attribution& tokens) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    grpc::Status status = Attribute(session, job, index, ids, begin, tokens);
    // A frontier that has become shorter has no such point.
    const bool moved = status.error_code() == grpc::StatusCode::INVALID_ARGUMENT;
    if (!moved && (!status.ok() || !tokens.empty())) return status;
    v1::Frontier frontier;
    status = FetchFrontier(session, job, v1::LAMBDA, &frontier);
    if (!status.ok()) return status;
    const auto now = std::find_if(frontier.points().begin(), frontier.points().end(),
                                  [&](const auto& point) { return Equal(point.ids(), ids); });
    if (now == frontier.points().end()) break;
    index = static_cast<int>(now - frontier.points().begin());
  }
  tokens.clear();
  return grpc::Status::OK;
}

// One line that is redrawn, or on what is no terminal a line now and then.
class Counter {
 public:
  explicit Counter(bool live) : live_(live) {}
  ~Counter() {
    if (live_ && shown_) std::fputs("\r\x1b[K", stderr);
  }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;

  // Before a token of a prompt, both counted from 0.
  void Show(int prompt, int prompts, int token, int tokens) {
    const absl::Time now = absl::Now();
    if (!live_ && shown_ && now - last_ < absl::Seconds(10)) return;
    last_ = now;
    const double done = prompt + static_cast<double>(token) / std::max(tokens, 1);
    std::string text = absl::StrCat("attributing prompt ", prompt + 1, " of ", prompts, ", token ",
                                    token + 1, " of ", tokens);
    if (done > 0) {
      absl::StrAppend(
          &text, absl::StrFormat(", %.1f s a prompt", absl::ToDoubleSeconds(now - start_) / done));
    }
    std::fprintf(stderr, "%s%s%s", live_ ? "\r\x1b[K" : "", text.c_str(), live_ ? "" : "\n");
    std::fflush(stderr);
    shown_ = true;
  }

 private:
  const bool live_;
  bool shown_ = false;
  const absl::Time start_ = absl::Now();
  absl::Time last_ = absl::InfinitePast();
};

// Whether a report is better without attributions than not made at all.
bool IsOfTheJob(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
         status.error_code() == grpc::StatusCode::PERMISSION_DENIED ||
         status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
}

}  // namespace

grpc::Status FetchServer(Session& session, v1::GetServerInfoResponse* server) {
  return session.client().Call(&Client::Stub::GetServerInfo, v1::GetServerInfoRequest(), server);
}

grpc::Status FetchJob(Session& session, const std::string& id, v1::Job* job) {
  v1::GetJobRequest request;
  request.set_id(id);
  return session.client().Call(&Client::Stub::GetJob, request, job);
}

grpc::Status FetchFrontier(Session& session, const std::string& id, v1::FrontierKind kind,
                           v1::Frontier* frontier) {
  v1::GetFrontierRequest request;
  request.set_id(id);
  request.set_kind(kind);
  return session.client().Call(&Client::Stub::GetFrontier, request, frontier, kFrontierTimeout);
}

grpc::Status FetchRun(Session& session, std::vector<double> thresholds, JobReport& report) {
  if (grpc::Status status = FetchSteps(session, report); !status.ok()) return status;
  grpc::Status status = FetchFrontier(session, report.job.id(), v1::PARETO, &report.pareto);
  if (!status.ok()) return status;
  report.best = BestUnder(thresholds.empty() ? ChooseThresholds(report.frontier) : thresholds);
  return FetchHistory(session, report);
}

grpc::Status FetchAttributions(Session& session, JobReport& report) {
  std::vector<Attribution> attributions;
  const int total = report.frontier.points_size();
  Counter counter(session.terminal().live);
  for (int i = 0; i < total; ++i) {
    const Ids& ids = report.frontier.points(i).ids();
    Attribution tokens;
    const grpc::Status status = AttributePrompt(
        session, report.job.id(), i, ids,
        [&](int token) { counter.Show(i, total, token, ids.size()); }, tokens);
    if (!status.ok()) {
      if (!IsOfTheJob(status)) return status;
      report.attribution_note =
          absl::StrCat("The server could not attribute the prompts: ", status.error_message());
      std::fprintf(stderr, "%sepo: without attributions: %s\n",
                   session.terminal().live ? "\r\x1b[K" : "",
                   Escape(status.error_message()).c_str());
      return grpc::Status::OK;
    }
    attributions.push_back(std::move(tokens));
  }
  report.attributions = std::move(attributions);
  return grpc::Status::OK;
}

grpc::Status FetchSweep(Session& session, const std::string& id, v1::Sweep* sweep,
                        std::vector<v1::ObjectiveFrontier>* objectives) {
  v1::GetSweepRequest request;
  request.set_id(id);
  grpc::Status status = session.client().Call(&Client::Stub::GetSweep, request, sweep);
  if (!status.ok()) return status;
  v1::GetSweepFrontierRequest frontier;
  frontier.set_id(id);
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().GetSweepFrontier(&context, frontier);
  v1::ObjectiveFrontier objective;
  while (reader->Read(&objective)) objectives->push_back(objective);
  return reader->Finish();
}

}  // namespace epo::cli
