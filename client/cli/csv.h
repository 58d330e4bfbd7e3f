// Tables for spreadsheets and data frames (RFC 4180). Pure functions.
#ifndef EPO_CLIENT_CLI_CSV_H_
#define EPO_CLIENT_CLI_CSV_H_

#include <array>
#include <string>
#include <vector>

#include "epo/v1/frontier.pb.h"

namespace epo::cli {

// The cells as one line that ends in a newline. A cell that holds a comma, a quote or a line break
// is quoted.
std::string CsvLine(const std::vector<std::string>& cells);

// The cells of a scored prompt: numbers that read back as the same float32 (cross_entropy empty for
// none), ids by spaces, round_trips true or false. The text is escaped as in a table when it is for
// a terminal, else as it is.
inline constexpr std::array kPromptColumns = {"target", "cross_entropy", "text", "ids",
                                              "round_trips"};
std::vector<std::string> CsvCells(const v1::ScoredPrompt& prompt, bool terminal);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_CSV_H_
