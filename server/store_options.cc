#include "server/store_options.h"

#include <CLI/CLI.hpp>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace epo {
namespace {

// A number of bytes, perhaps with KiB, MiB, GiB or TiB. False for anything else.
bool ParseBytes(const std::string& text, int64_t* bytes) {
  absl::string_view number = text;
  int shift = 0;
  for (const auto& [suffix, bits] :
       {std::pair("KiB", 10), std::pair("MiB", 20), std::pair("GiB", 30), std::pair("TiB", 40)}) {
    if (absl::ConsumeSuffix(&number, suffix)) {
      shift = bits;
      break;
    }
  }
  number = absl::StripTrailingAsciiWhitespace(number);
  int64_t count = 0;
  if (!absl::SimpleAtoi(number, &count) || count < 0 ||
      count > std::numeric_limits<int64_t>::max() >> shift) {
    return false;
  }
  *bytes = count << shift;
  return true;
}

void AddBytes(CLI::App& app, const std::string& name, int64_t& bytes, const std::string& help,
              const std::string& shown_default) {
  app.add_option_function<std::string>(
         name,
         [name, &bytes](const std::string& text) {
           if (ParseBytes(text, &bytes)) return;
           throw CLI::ValidationError(name, "\"" + text +
                                                "\" is not a size; give bytes or, as in 20GiB, "
                                                "KiB, MiB, GiB or TiB");
         },
         help)
      ->type_name("BYTES")
      ->default_str(shown_default);
}

}  // namespace

void AddStoreOptions(CLI::App& app, ServerOptions& options) {
  app.add_option_function<std::string>(
         "--retention",
         [&options](const std::string& text) {
           if (absl::ParseDuration(text, &options.retention) &&
               options.retention > absl::ZeroDuration()) {
             return;
           }
           throw CLI::ValidationError(
               "--retention", "\"" + text + "\" is not a positive duration such as 720h or 90m");
         },
         "How long ended jobs are kept")
      ->type_name("DURATION")
      ->default_str("for ever");
  AddBytes(app, "--max-state-bytes", options.storage.max_state_bytes,
           "What jobs may take before new ones are refused; 0: no limit", "0");
  AddBytes(app, "--min-free-bytes", options.storage.min_free_bytes,
           "What new jobs must leave free on the disk", "256MiB");
}

}  // namespace epo
