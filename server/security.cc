#include "server/security.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_keys.h"
#include "server/file_watch.h"
#include "server/listen_address.h"

namespace epo {
namespace {

// An option whose value is a path; CLI11 knows no std::filesystem::path.
CLI::Option* AddFile(CLI::App& app, const std::string& name, std::filesystem::path& file,
                     const std::string& description) {
  return app
      .add_option_function<std::string>(
          name, [&file](const std::string& value) { file = value; }, description)
      ->check(CLI::Validator(CLI::ExistingFile).description(""))
      ->type_name("FILE")
      ->group("Security");
}

void PrintNewApiKey(const std::string& name_and_roles) {
  const absl::StatusOr<NewApiKey> made = MakeApiKey(name_and_roles);
  if (!made.ok()) {
    throw CLI::ValidationError("--new-api-key", std::string(made.status().message()));
  }
  std::cerr << "The client's key, which nobody can show again, and the line for --api-keys FILE:\n";
  std::cout << made->key << '\n' << made->line << std::endl;
  throw CLI::Success();
}

class SecurityImpl final : public Security {
 public:
  SecurityImpl(std::unique_ptr<ApiKeys> keys, std::unique_ptr<Tls> tls,
               const SecurityOptions& options, const Limits& limits)
      : keys_(std::move(keys)), tls_(std::move(tls)), gate_(keys_.get(), limits) {
    if (keys_ != nullptr) watch_.Add({keys_->file()}, [this] { keys_->Reload(); });
    if (tls_ != nullptr) watch_.Add(options.tls.all(), [this] { tls_->Reload(); });
  }

  std::shared_ptr<grpc::ServerCredentials> credentials() override {
    return tls_ == nullptr ? grpc::InsecureServerCredentials() : tls_->credentials();
  }
  Gate& gate() override { return gate_; }

 private:
  const std::unique_ptr<ApiKeys> keys_;
  const std::unique_ptr<Tls> tls_;
  Gate gate_;
  // The first to go: it calls the others.
  FileWatch watch_;
};

}  // namespace

void AddSecurityOptions(CLI::App& app, SecurityOptions& options) {
  CLI::Option* certificate =
      AddFile(app, "--tls-cert", options.tls.certificate, "The server's certificate chain, PEM");
  CLI::Option* key = AddFile(app, "--tls-key", options.tls.key, "Its private key, PEM");
  certificate->needs(key);
  key->needs(certificate);
  AddFile(app, "--tls-client-ca", options.tls.client_ca,
          "Let in only clients with a certificate of these authorities, PEM")
      ->needs(certificate);
  AddFile(app, "--api-keys", options.api_keys, "Let in only clients with a key in this file");
  app.add_flag("--insecure", options.insecure,
               "Listen beyond this machine without TLS, or for everybody")
      ->group("Security");
  app.add_option_function<std::string>("--new-api-key", PrintNewApiKey,
                                       "Print a new key and its line for --api-keys, and exit")
      ->type_name("NAME:ROLES")
      ->group("Security");
}

absl::Status CheckSecurity(const SecurityOptions& options, const std::string& listen) {
  if (IsLoopback(listen)) return absl::OkStatus();
  if (!options.has_tls() && !options.api_keys.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(listen,
                     " can be reached from other machines, and --api-keys without TLS would "
                     "show the keys to the network; give --tls-cert and --tls-key, or "
                     "listen on 127.0.0.1"));
  }
  const bool knows_clients = !options.api_keys.empty() || !options.tls.client_ca.empty();
  if (options.insecure || (options.has_tls() && knows_clients)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(listen, " can be reached from other machines, and ",
                   options.has_tls() ? "everybody there could use the server; give --api-keys or "
                                       "--tls-client-ca"
                                     : "everybody there could use the server and read what others "
                                       "do; give --tls-cert, --tls-key and --api-keys",
                   ", listen on 127.0.0.1, or accept it with --insecure"));
}

absl::StatusOr<std::unique_ptr<Security>> Security::Open(const SecurityOptions& options,
                                                         const Limits& limits) {
  std::unique_ptr<ApiKeys> keys;
  if (!options.api_keys.empty()) {
    absl::StatusOr<std::unique_ptr<ApiKeys>> opened = ApiKeys::Open(options.api_keys);
    if (!opened.ok()) return opened.status();
    keys = *std::move(opened);
  }
  std::unique_ptr<Tls> tls;
  if (options.has_tls()) {
    absl::StatusOr<std::unique_ptr<Tls>> opened = Tls::Open(options.tls);
    if (!opened.ok()) return opened.status();
    tls = *std::move(opened);
  }
  return std::make_unique<SecurityImpl>(std::move(keys), std::move(tls), options, limits);
}

}  // namespace epo
