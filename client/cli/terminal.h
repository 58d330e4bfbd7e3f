// What the standard streams are connected to.
#ifndef EPO_CLIENT_CLI_TERMINAL_H_
#define EPO_CLIENT_CLI_TERMINAL_H_

#include <string>
#include <string_view>

namespace epo::cli {

struct TerminalSize {
  int columns = 80;
  int rows = 24;
};

// How stdout and stderr may be written to.
struct Terminal {
  bool stdout_is_terminal = false;
  // stderr is a terminal where lines can be redrawn: not a dumb one, not a CI's log.
  bool live = false;
  // Colours on stdout and on stderr; never with NO_COLOR.
  bool color_stdout = false;
  bool color_stderr = false;
  // The locale's characters are UTF-8.
  bool utf8 = false;
};

Terminal DetectTerminal();

// The size of stderr's terminal now.
TerminalSize StderrSize();

// The text in the terminal's attributes ("1" bold, "2" dim, "32" green...), or as it is without
// colour.
std::string Styled(std::string_view text, std::string_view attributes, bool color);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_TERMINAL_H_
