// What the live display shows, as text. Pure functions.
#ifndef EPO_CLIENT_CLI_FRAME_H_
#define EPO_CLIENT_CLI_FRAME_H_

#include <absl/time/time.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/progress.h"
#include "client/cli/terminal.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

// A followed job as the client knows it.
struct View {
  // As last told.
  v1::Job job;
  Progress progress;
  // Of the latest step.
  v1::Frontier frontier;
  // Why there is no connection, and since when; absent while there is one.
  struct Lost {
    std::string reason;
    absl::Time since;
  };
  std::optional<Lost> lost;
};

// A bar of what is done, and behind it "done/total" and `rest`; in a narrow terminal without
// `rest`, or the numbers alone.
std::string ProgressBar(int64_t done, int64_t total, const std::string& rest, int width,
                        bool color);

// Why there is no connection.
std::string LostLine(const View::Lost& lost, absl::Time now, int width, bool color);

// The display's lines, at most size.rows - 1 of them (the cursor stands below), each at most
// size.columns wide: the job, a bar with step, time left and evaluations a second, and, if asked
// for, the frontier in what is left: as a plot, too, where that leaves room for the table.
std::vector<std::string> FrameLines(const View& view, bool with_frontier, absl::Time now,
                                    TerminalSize size, bool color, bool utf8);

// One line for where nothing can be redrawn: step, best target and least cross-entropy on the
// frontier, time left, speed.
std::string PlainLine(const View& view, absl::Time now);

// One line about a job that has ended.
std::string EndLine(const v1::Job& job);

// One line that says of a job with no prompt on its frontier that it is so, and why.
std::string EmptyFrontierLine(const v1::Job& job);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_FRAME_H_
