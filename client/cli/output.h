// Standard output: data, in the format that the user chose.
#ifndef EPO_CLIENT_CLI_OUTPUT_H_
#define EPO_CLIENT_CLI_OUTPUT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "client/cli/settings.h"

namespace epo::cli {

// Thrown when standard output takes no more; main() turns it into the end of the program. `error`
// is the errno: EPIPE when the reader has gone, which is no failure.
struct OutputError {
  int error;
};

// Writes text to standard output and flushes it. Throws OutputError.
void Print(std::string_view text);

// Prints a list as `{"<name>": [...]}` (json) or one item a line (jsonl), item by item, so that a
// long list is never held. Not for the table format.
class ListPrinter {
 public:
  ListPrinter(std::string name, Format format);
  // Before the first item: a value that the list is about, as a member of the same object (json) or
  // as `{"<name>": ...}` on a line of its own (jsonl).
  void Lead(const std::string& name, const nlohmann::ordered_json& value);
  void Add(const nlohmann::ordered_json& item);
  // Ends the list; without it what was printed is visibly unfinished.
  void Finish();

 private:
  std::string name_;
  Format format_;
  // What opens the object.
  std::string opening_ = "{";
  bool empty_ = true;
};

// Prints one value: indented (json) or on one line (jsonl). Not for the table format.
void PrintValue(const nlohmann::ordered_json& value, Format format);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_OUTPUT_H_
