// TLS for the server's address, with certificates that can be replaced while it runs.
#ifndef EPO_SERVER_TLS_H_
#define EPO_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epo {

// All PEM.
struct TlsFiles {
  // The server's certificate and those between it and its authority.
  std::filesystem::path certificate;
  std::filesystem::path key;
  // Authorities of clients; each client must then have a certificate of one of them. May be empty.
  std::filesystem::path client_ca;

  std::vector<std::filesystem::path> all() const;
};

struct TlsPems {
  std::string certificate;
  std::string key;
  std::string client_ca;

  friend bool operator==(const TlsPems&, const TlsPems&) = default;
};

// Reads and checks: the first certificate and the key belong together, and what is there can be
// parsed. FAILED_PRECONDITION names the file.
absl::StatusOr<TlsPems> ReadTlsFiles(const TlsFiles& files);

// Thread-safe.
class Tls {
 public:
  // FAILED_PRECONDITION as ReadTlsFiles().
  static absl::StatusOr<std::unique_ptr<Tls>> Open(const TlsFiles& files);
  // After every server that uses the credentials.
  virtual ~Tls() = default;

  // Reads the files again: new connections get what they hold, while those that are there go on.
  // What is wrong with them goes to the log, and everything stays as it is.
  virtual void Reload() = 0;

  // For one listening address.
  virtual std::shared_ptr<grpc::ServerCredentials> credentials() = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_TLS_H_
