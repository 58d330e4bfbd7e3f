// Tables for spreadsheets and data frames (RFC 4180). Pure functions.
#ifndef EPO_CLIENT_CLI_CSV_H_
#define EPO_CLIENT_CLI_CSV_H_

#include <string>
#include <vector>

#include "epo/v1/frontier.pb.h"

namespace epo::cli {

// The cells as one line that ends in a newline. A cell that holds a comma, a quote or a line break
// is quoted.
std::string CsvLine(const std::vector<std::string>& cells);

// target, cross_entropy (empty for none), text (escaped as in a table, so that a row is a line) and
// ids (exact, by spaces); numbers read back as the same float32.
std::vector<std::string> CsvCells(const v1::ScoredPrompt& prompt);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_CSV_H_
