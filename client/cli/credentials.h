// What a connection is made with, read from the files that the settings name.
#ifndef EPO_CLIENT_CLI_CREDENTIALS_H_
#define EPO_CLIENT_CLI_CREDENTIALS_H_

#include <absl/status/statusor.h>

#include <string>

#include "client/cli/settings.h"

namespace epo::cli {

struct Credentials {
  bool tls = false;
  // PEM; empty for the system's authorities, and for no certificate of the client's own.
  std::string ca;
  std::string certificate;
  std::string key;
  // Empty for none.
  std::string api_key;
};

// Whether `server` (HOST:PORT or another gRPC target) is on this machine.
bool IsLocal(const std::string& server);

// INVALID_ARGUMENT names a file that cannot be read, what is no API key, and a key that would go to
// another machine without TLS. Warns on stderr when everybody on the machine can read a key.
absl::StatusOr<Credentials> ReadCredentials(const Settings& settings);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_CREDENTIALS_H_
