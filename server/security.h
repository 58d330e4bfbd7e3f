// What keeps strangers out: the server's flags for it, and what they become.
#ifndef EPO_SERVER_SECURITY_H_
#define EPO_SERVER_SECURITY_H_

#include <grpcpp/security/server_credentials.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/gate.h"
#include "server/limits.h"
#include "server/tls.h"

namespace CLI {
class App;
}

namespace epo {

struct SecurityOptions {
  // Empty paths: no TLS.
  TlsFiles tls;
  // Empty: no keys.
  std::filesystem::path api_keys;
  // Listen beyond this machine without TLS, or without knowing clients.
  bool insecure = false;

  bool has_tls() const { return !tls.certificate.empty(); }
};

// The flags, which fill `options`. Also --new-api-key, which prints a key and its line for the file
// and ends the parsing with CLI::Success.
void AddSecurityOptions(CLI::App& app, SecurityOptions& options);

// INVALID_ARGUMENT, with the remedy, unless `options` are safe enough to serve on HOST:PORT.
absl::Status CheckSecurity(const SecurityOptions& options, const std::string& listen);

// Reads the files and then watches them. Thread-safe.
class Security {
 public:
  // FAILED_PRECONDITION names the file that cannot be used.
  static absl::StatusOr<std::unique_ptr<Security>> Open(const SecurityOptions& options,
                                                        const Limits& limits);
  // After the gRPC server.
  virtual ~Security() = default;

  virtual std::shared_ptr<grpc::ServerCredentials> credentials() = 0;
  virtual Gate& gate() = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_SECURITY_H_
