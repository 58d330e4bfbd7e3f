// Sweeps as people read them. Pure functions.
#ifndef EPO_CLIENT_CLI_SWEEP_TEXT_H_
#define EPO_CLIENT_CLI_SWEEP_TEXT_H_

#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/cli/frame.h"
#include "client/cli/terminal.h"
#include "epo/v1/sweep.pb.h"

namespace epo::cli {

// Whether an id is a sweep's, and not a job's.
bool IsSweepId(std::string_view id);

// "64 objectives x 5 seeds".
std::string SweepSizeText(const v1::Sweep& sweep);

// "12 running, 200 queued, 108 succeeded": the states that some job is in.
std::string JobCountsText(const v1::JobCounts& jobs);

// Jobs that have ended, and all.
int EndedJobs(const v1::Sweep& sweep);
int AllJobs(const v1::Sweep& sweep);

// The sweep as a two-column list of what people ask for.
std::vector<std::string> SweepLines(const v1::Sweep& sweep);

// One line about a sweep that has ended.
std::string SweepEndLine(const v1::Sweep& sweep);

// How fast a followed sweep goes. Time is passed in. Not thread-safe.
class SweepPace {
 public:
  // The sweep as it was found now.
  void Add(const v1::Sweep& sweep, absl::Time now);
  // Absent until two looks differ.
  std::optional<double> EvaluationsPerSecond() const;
  // Time until the last iteration of all jobs.
  std::optional<absl::Duration> Remaining(absl::Time now) const;

 private:
  struct Sample {
    absl::Time time;
    int64_t done;
    int64_t evaluations;
  };
  int64_t total_ = 0;
  // Of the last minutes.
  std::deque<Sample> samples_;
};

// A followed sweep as the client knows it.
struct SweepView {
  v1::Sweep sweep;
  SweepPace pace;
  std::optional<View::Lost> lost;
};

// The live display's lines, as FrameLines() makes a job's.
std::vector<std::string> SweepFrameLines(const SweepView& view, absl::Time now, TerminalSize size,
                                         bool color);

// One line for where nothing can be redrawn.
std::string SweepPlainLine(const SweepView& view, absl::Time now);

// One point of an objective's frontier as a row of the sweep's one table: for a table, and with
// plain keys for JSON.
std::vector<std::string> SweepPointRow(const v1::ObjectiveFrontier& objective,
                                       const v1::ObjectiveFrontier::Point& point);
nlohmann::ordered_json SweepPointJson(const v1::ObjectiveFrontier& objective,
                                      const v1::ObjectiveFrontier::Point& point);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_SWEEP_TEXT_H_
