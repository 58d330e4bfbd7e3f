// Where the server is, how to connect to it and how data are printed: flags over environment over
// profile over defaults.
#ifndef EPO_CLIENT_CLI_SETTINGS_H_
#define EPO_CLIENT_CLI_SETTINGS_H_

#include <absl/status/statusor.h>

#include <optional>
#include <string>

namespace epo::cli {

// kCsv: only of what is one table of numbers.
enum class Format { kTable, kJson, kJsonl, kCsv };

struct Settings {
  std::string server = "127.0.0.1:50051";
  Format format = Format::kTable;
  bool tls = false;
  // PEM files; empty for the system's authorities, and for no certificate of the client's own.
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  // The key itself, or the file that holds it; both empty for none.
  std::string api_key;
  std::string api_key_file;
};

// What one source says; absent where it says nothing.
struct PartialSettings {
  std::optional<std::string> server;
  std::optional<std::string> output;
  // "true" or "false", also as 1, 0, yes, no, on, off.
  std::optional<std::string> tls;
  std::optional<std::string> tls_ca;
  std::optional<std::string> tls_cert;
  std::optional<std::string> tls_key;
  std::optional<std::string> api_key_file;
  // From the environment alone: a command line is seen by everybody on the machine, and a profile
  // is no place for secrets.
  std::optional<std::string> api_key;
};

// $XDG_CONFIG_HOME/epo/config.toml, else ~/.config/epo/config.toml; empty when neither variable is
// set.
std::string ProfilePath();

// The profile at `path`: TOML with keys named as the flags: server, output, tls, tls-ca, tls-cert,
// tls-key, api-key-file. A missing file says nothing; INVALID_ARGUMENT names file and key of what
// it should not hold.
absl::StatusOr<PartialSettings> ReadProfile(const std::string& path);

// The variables EPO_SERVER, EPO_TLS, EPO_TLS_CA, EPO_TLS_CERT, EPO_TLS_KEY, EPO_API_KEY and
// EPO_API_KEY_FILE; empty ones say nothing.
PartialSettings ReadEnvironment();

// INVALID_ARGUMENT names an unknown output format, an empty address, a certificate without its key,
// and where it comes from. An address without a port gets 50051. A file for TLS turns TLS on unless
// a source says no. Of one source, the key itself goes before its file.
absl::StatusOr<Settings> ResolveSettings(const PartialSettings& flags,
                                         const PartialSettings& environment,
                                         const PartialSettings& profile);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_SETTINGS_H_
