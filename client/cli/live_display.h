// A block of lines at the end of a terminal's output that is redrawn in place.
#ifndef EPO_CLIENT_CLI_LIVE_DISPLAY_H_
#define EPO_CLIENT_CLI_LIVE_DISPLAY_H_

#include <string>
#include <vector>

#include "client/cli/terminal.h"

namespace epo::cli {

// Draws to stderr, which must be a terminal. Hides the cursor while something is drawn and shows it
// again at the latest when destroyed. Not thread-safe.
class LiveDisplay {
 public:
  LiveDisplay() = default;
  ~LiveDisplay() { Clear(); }
  LiveDisplay(const LiveDisplay&) = delete;
  LiveDisplay& operator=(const LiveDisplay&) = delete;

  // Puts the lines in the place of those drawn before. They must fit `size`, the terminal's size
  // now.
  void Draw(const std::vector<std::string>& lines, TerminalSize size);
  // Takes the lines away; the cursor stands where they began.
  void Clear();
  // Leaves the lines in the terminal's history; the cursor stands below them.
  void Keep();

 private:
  std::string ToTop(int columns) const;

  // Columns of each line drawn.
  std::vector<int> widths_;
};

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_LIVE_DISPLAY_H_
