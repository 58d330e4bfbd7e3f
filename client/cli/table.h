// Tables for people. Pure functions.
#ifndef EPO_CLIENT_CLI_TABLE_H_
#define EPO_CLIENT_CLI_TABLE_H_

#include <absl/time/time.h>

#include <string>
#include <vector>

#include "epo/v1/frontier.pb.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

struct Column {
  std::string title;
  bool right = false;
};

// A header and the rows in lines without newlines, aligned by display width, two spaces between
// columns, at most `width` columns wide (0: as wide as it comes; else a line that is too long is
// clipped). Cells are escaped already.
std::vector<std::string> TableLines(const std::vector<Column>& columns,
                                    const std::vector<std::vector<std::string>>& rows, int width,
                                    bool color);

// The lines, each with a newline.
std::string JoinLines(const std::vector<std::string>& lines);

// A score in a table; "-" when there is none.
std::string ScoreCell(float value);
std::string CrossEntropyCell(const v1::ScoredPrompt& prompt);

// The frontier's points by cross-entropy, with whether they round-trip unless all do, in at most
// `height` lines, the header included: when there are more points, an even choice of them that
// keeps both ends, and a last line that counts the others. `height` 0: all of them.
std::vector<std::string> FrontierLines(const v1::Frontier& frontier, int width, int height,
                                       bool color);

// "ASCII, without \"paris\", frozen at 0,1"; empty when nothing is forbidden.
std::string ConstraintsText(const v1::Constraints& constraints);

// "RUNNING"; of a job in the queue also its place there and, if known, when its turn comes:
// "QUEUED, place 3, in 4m10s".
std::string StateText(const v1::Job& job, absl::Time now);

// The place and the time alone, "3, in 4m10s"; "held" for a job that this server cannot run; empty
// for one that does not wait.
std::string QueueText(const v1::Job& job, absl::Time now);

// The job as a two-column list of what people ask for.
std::vector<std::string> JobLines(const v1::Job& job);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_TABLE_H_
