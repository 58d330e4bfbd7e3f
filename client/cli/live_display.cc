#include "client/cli/live_display.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

constexpr char kHideCursor[] = "\x1b[?25l";
constexpr char kShowCursor[] = "\x1b[?25h";
constexpr char kClearLine[] = "\x1b[K";
constexpr char kClearBelow[] = "\x1b[J";

// A terminal that is gone takes nothing, and the job's outcome does not depend on it.
void WriteStderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return;
    text.remove_prefix(written);
  }
}

// Columns of a line that may hold attributes ("\x1b[...m").
int VisibleWidth(std::string_view line) {
  std::string plain;
  while (!line.empty()) {
    const size_t escape = line.find('\x1b');
    plain += line.substr(0, escape);
    if (escape == std::string_view::npos) break;
    line.remove_prefix(std::min(line.size(), line.find('m', escape) + 1));
  }
  return DisplayWidth(plain);
}

}  // namespace

std::string LiveDisplay::ToTop(int columns) const {
  int up = 0;
  // A terminal that became narrower has wrapped the lines that were drawn for its former width.
  for (const int width : widths_) up += std::max(1, (width + columns - 1) / columns);
  return up == 0 ? "\r" : absl::StrCat("\r\x1b[", up, "A");
}

void LiveDisplay::Draw(const std::vector<std::string>& lines, TerminalSize size) {
  std::string out = absl::StrCat(kHideCursor, ToTop(size.columns));
  widths_.clear();
  for (const std::string& line : lines) {
    absl::StrAppend(&out, line, kClearLine, "\r\n");
    widths_.push_back(VisibleWidth(line));
  }
  // One write, so that no half of a frame is ever seen.
  WriteStderr(absl::StrCat(out, kClearBelow));
}

void LiveDisplay::Clear() {
  if (widths_.empty()) return;
  WriteStderr(absl::StrCat(ToTop(StderrSize().columns), kClearBelow, kShowCursor));
  widths_.clear();
}

void LiveDisplay::Keep() {
  if (widths_.empty()) return;
  // What the terminal echoed of the user's keys, such as ^C, goes.
  WriteStderr(absl::StrCat("\r", kClearLine, kShowCursor));
  widths_.clear();
}

}  // namespace epo::cli
