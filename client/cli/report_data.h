// What a report tells, as the JSON that its page and figures are drawn from (client/report/page.js,
// figures.js). Pure functions and values.
#ifndef EPO_CLIENT_CLI_REPORT_DATA_H_
#define EPO_CLIENT_CLI_REPORT_DATA_H_

#include <absl/status/statusor.h>

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "epo/v1/service.pb.h"

namespace epo::cli {

// The iterations, in numbers done, whose frontiers tell how a search of `completed` ones went: from
// 1 to `completed`, at most 5, farther and farther apart.
std::vector<int> TellingIterations(int completed);

// Up to five round numbers within the cross-entropies of the frontier, ascending; where none is,
// the greatest of them, rounded up to hundredths; none without points.
std::vector<double> ChooseThresholds(const v1::Frontier& frontier);

// "4,6.5": at least one number above 0, at most 5, ascending and all different.
// INVALID_ARGUMENT says what is none.
absl::StatusOr<std::vector<double>> ParseThresholds(std::string_view text);

// The best target so far under each threshold, fed with a history in order.
class BestUnder {
 public:
  explicit BestUnder(std::vector<double> thresholds);
  void Add(const v1::Iteration& iteration);
  // Ends the curves at the last iteration that was added.
  nlohmann::ordered_json Json() const;

 private:
  struct Curve {
    double threshold;
    // Iterations done, and the best target from then on.
    std::vector<std::pair<int, float>> points;
  };
  std::vector<Curve> curves_;
  int done_ = 0;
};

// A prompt's attribution: one of its messages a token. Empty: the prompt has left the frontier.
using Attribution = std::vector<v1::TokenAttribution>;

struct JobReport {
  v1::Job job;
  v1::GetServerInfoResponse server;
  // After the job's last completed iteration.
  v1::Frontier frontier;
  v1::Frontier pareto;
  // The frontier after so many iterations.
  std::map<int, v1::Frontier> evolution;
  // The iterations, from 1, that were restarts.
  std::vector<int> restarts;
  BestUnder best{{}};
  // One for each point of the frontier; absent when nothing was attributed, for which the note says
  // why, if not by the user's wish.
  std::optional<std::vector<Attribution>> attributions;
  std::string attribution_note;
};

// "12 of 24 iterations": how far a job is that has not run all of them; otherwise "".
std::string PartText(const v1::Job& job);

// `made` is when, for people.
nlohmann::ordered_json JobReportJson(const JobReport& report, const std::string& made);

struct ComparedJob {
  v1::Job job;
  v1::Frontier frontier;
};

// Notes when the jobs differ in what makes their numbers comparable: objective or model.
nlohmann::ordered_json CompareReportJson(const std::vector<ComparedJob>& jobs,
                                         const v1::GetServerInfoResponse& server,
                                         const std::string& made);

// `links` are the reports that there are of the sweep's jobs: from the job's id to a URL.
nlohmann::ordered_json SweepReportJson(const v1::Sweep& sweep,
                                       const std::vector<v1::ObjectiveFrontier>& objectives,
                                       const std::map<std::string, std::string>& links,
                                       const v1::GetServerInfoResponse& server,
                                       const std::string& made);

// The page of such data: one HTML file that needs no other.
std::string ReportPage(const nlohmann::ordered_json& data);

// The data as they may stand within an HTML element of JSON.
std::string EmbeddedJson(const nlohmann::ordered_json& data);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_REPORT_DATA_H_
