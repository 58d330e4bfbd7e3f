#include "client/cli/output.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/cli/json.h"

namespace epo::cli {

void Print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw OutputError{errno};
    text.remove_prefix(written);
  }
}

ListPrinter::ListPrinter(std::string name, Format format)
    : name_(std::move(name)), format_(format) {}

void ListPrinter::Lead(const std::string& name, const nlohmann::ordered_json& value) {
  if (format_ == Format::kJsonl) {
    Print("{\"" + name + "\":" + Compact(value) + "}\n");
  } else {
    opening_ = "{\"" + name + "\": " + Compact(value) + ",\n";
  }
}

void ListPrinter::Add(const nlohmann::ordered_json& item) {
  if (format_ == Format::kJsonl) {
    Print(Compact(item) + "\n");
  } else {
    Print((empty_ ? opening_ + "\"" + name_ + "\": [\n" : ",\n") + Compact(item));
  }
  empty_ = false;
}

void ListPrinter::Finish() {
  if (format_ == Format::kJsonl) return;
  Print(empty_ ? opening_ + "\"" + name_ + "\": []}\n" : "\n]}\n");
}

void PrintValue(const nlohmann::ordered_json& value, Format format) {
  Print((format == Format::kJson ? Pretty(value) : Compact(value)) + "\n");
}

}  // namespace epo::cli
