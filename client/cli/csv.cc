#include "client/cli/csv.h"

#include <absl/strings/str_join.h>
#include <absl/strings/str_replace.h>

#include <charconv>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

std::string Number(float value) {
  char decimal[32];
  return {decimal, std::to_chars(decimal, decimal + sizeof(decimal), value).ptr};
}

}  // namespace

std::string CsvLine(const std::vector<std::string>& cells) {
  return absl::StrJoin(cells, ",",
                       [](std::string* out, const std::string& cell) {
                         if (cell.find_first_of(",\"\r\n") == std::string::npos) {
                           *out += cell;
                         } else {
                           *out += "\"" + absl::StrReplaceAll(cell, {{"\"", "\"\""}}) + "\"";
                         }
                       }) +
         "\n";
}

std::vector<std::string> CsvCells(const v1::ScoredPrompt& prompt, bool terminal) {
  return {Number(prompt.target()), prompt.has_cross_entropy() ? Number(prompt.cross_entropy()) : "",
          terminal ? Escape(prompt.text()) : prompt.text(), absl::StrJoin(prompt.ids(), " "),
          prompt.round_trips() ? "true" : "false"};
}

}  // namespace epo::cli
