#include "client/cli/terminal.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace epo::cli {
namespace {

std::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// By the variables' names alone: a locale that this machine has not is often the terminal's.
bool IsUtf8Locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = absl::AsciiStrToLower(std::string(Environment(name)));
    if (value.empty()) continue;
    return absl::StrContains(value, "utf-8") || absl::StrContains(value, "utf8");
  }
  return false;
}

}  // namespace

Terminal DetectTerminal() {
  const std::string_view term = Environment("TERM");
  const std::string_view ci = Environment("CI");
  const bool capable = !term.empty() && term != "dumb" && (ci.empty() || ci == "false");
  const bool color = capable && Environment("NO_COLOR").empty();
  const bool stderr_is_terminal = isatty(STDERR_FILENO) == 1;
  Terminal terminal;
  terminal.stdout_is_terminal = isatty(STDOUT_FILENO) == 1;
  terminal.live = stderr_is_terminal && capable;
  terminal.color_stdout = terminal.stdout_is_terminal && color;
  terminal.color_stderr = stderr_is_terminal && color;
  terminal.utf8 = IsUtf8Locale();
  return terminal;
}

TerminalSize StderrSize() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
    return {};
  return {size.ws_col, size.ws_row};
}

std::string Styled(std::string_view text, std::string_view attributes, bool color) {
  if (!color || attributes.empty()) return std::string(text);
  return absl::StrCat("\x1b[", std::string(attributes), "m", std::string(text), "\x1b[0m");
}

}  // namespace epo::cli
