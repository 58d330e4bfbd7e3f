// Where the server is and how data are printed: flags over environment over profile over defaults.
#ifndef EPO_CLIENT_CLI_SETTINGS_H_
#define EPO_CLIENT_CLI_SETTINGS_H_

#include <absl/status/statusor.h>

#include <optional>
#include <string>

namespace epo::cli {

enum class Format { kTable, kJson, kJsonl };

struct Settings {
  std::string server = "127.0.0.1:50051";
  Format format = Format::kTable;
};

// What one source says; absent where it says nothing.
struct PartialSettings {
  std::optional<std::string> server;
  std::optional<std::string> output;
};

// $XDG_CONFIG_HOME/epo/config.toml, else ~/.config/epo/config.toml; empty when neither variable is
// set.
std::string ProfilePath();

// The profile at `path`: TOML with the keys `server` and `output`. A missing file says nothing;
// INVALID_ARGUMENT names file and key of what it should not hold.
absl::StatusOr<PartialSettings> ReadProfile(const std::string& path);

// INVALID_ARGUMENT names an unknown output format or an empty address and where it comes from. An
// address without a port gets 50051.
absl::StatusOr<Settings> ResolveSettings(const PartialSettings& flags,
                                         const PartialSettings& environment,
                                         const PartialSettings& profile);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_SETTINGS_H_
