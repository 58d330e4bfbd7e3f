#include "server/tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <spdlog/spdlog.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/file_watch.h"

namespace epo {
namespace {

template <auto free>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

absl::Status Bad(const std::filesystem::path& file, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat(file.string(), ": ", why));
}

Bio Memory(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// A server has nobody to ask for a passphrase.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*for_writing*/, void* /*data*/) { return 0; }

// The first of the text's certificates, all of which must be readable.
absl::StatusOr<Certificate> FirstCertificate(const std::string& pem,
                                             const std::filesystem::path& file) {
  const Bio bio = Memory(pem);
  Certificate first;
  ERR_clear_error();
  while (Certificate next{PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)}) {
    if (first == nullptr) first = std::move(next);
  }
  // The end of the text is the one error there should be.
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (first == nullptr || !at_end) return Bad(file, "not a PEM file of certificates");
  return first;
}

std::string DateOf(const ASN1_TIME* time) {
  const Bio bio(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(bio.get(), time);
  char* text = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio.get(), &text));
  return {text, size};
}

// What is no reason to refuse the files. `pems` has passed ReadTlsFiles().
void WarnOf(const TlsPems& pems, const TlsFiles& files) {
  WarnIfOthersCanRead(files.key);
  const std::filesystem::path& file = files.certificate;
  const Certificate first = *FirstCertificate(pems.certificate, file);
  const X509* certificate = first.get();
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    spdlog::warn("{}: the certificate has expired on {}", file.string(),
                 DateOf(X509_get0_notAfter(certificate)));
  } else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
    spdlog::warn("{}: the certificate is not valid before {}", file.string(),
                 DateOf(X509_get0_notBefore(certificate)));
  }
}

grpc_ssl_server_certificate_config* MakeConfig(const TlsPems& pems) {
  const grpc_ssl_pem_key_cert_pair pair = {pems.key.c_str(), pems.certificate.c_str()};
  // gRPC wants authorities here even if it is to ask no client for a certificate.
  const std::string& authorities = pems.client_ca.empty() ? pems.certificate : pems.client_ca;
  return grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
}

// What gRPC offers in C only: it asks at each new connection whether there are other certificates.
// (Its C++ FileWatcherCertificateProvider refuses all connections while key and certificate on the
// disk do not match, as between the two writes of a renewal.)
class Credentials final : public grpc::ServerCredentials {
 public:
  // The certificates, and a number that changes with them.
  using Fetch = std::function<std::pair<TlsPems, int64_t>()>;

  Credentials(bool verify_clients, Fetch fetch)
      : verify_clients_(verify_clients), fetch_(std::move(fetch)) {}

  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>& /*processor*/) override {
    spdlog::critical("TLS credentials take no metadata processor: see gate.h");
    std::abort();
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* credentials = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            verify_clients_ ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                            : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &Credentials::Renew, this));
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  static grpc_ssl_certificate_config_reload_status Renew(
      void* self, grpc_ssl_server_certificate_config** config) {
    auto& credentials = *static_cast<Credentials*>(self);
    const auto [pems, version] = credentials.fetch_();
    absl::MutexLock lock(&credentials.mutex_);
    if (version <= credentials.version_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    credentials.version_ = version;
    *config = MakeConfig(pems);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const bool verify_clients_;
  const Fetch fetch_;
  absl::Mutex mutex_;
  int64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
};

class TlsImpl final : public Tls {
 public:
  TlsImpl(TlsFiles files, TlsPems pems)
      : files_(std::move(files)),
        pems_(std::move(pems)),
        credentials_(std::make_shared<Credentials>(!files_.client_ca.empty(), [this] {
          absl::MutexLock lock(&mutex_);
          return std::make_pair(pems_, version_);
        })) {}

  void Reload() override {
    absl::StatusOr<TlsPems> pems = ReadTlsFiles(files_);
    if (!pems.ok()) {
      spdlog::error("the TLS certificates stay as they are: {}",
                    std::string(pems.status().message()));
      return;
    }
    absl::MutexLock lock(&mutex_);
    if (*pems == pems_) return;
    pems_ = *std::move(pems);
    ++version_;
    spdlog::info("TLS certificates read again: {}", files_.certificate.string());
    WarnOf(pems_, files_);
  }

  std::shared_ptr<grpc::ServerCredentials> credentials() override { return credentials_; }

 private:
  const TlsFiles files_;
  absl::Mutex mutex_;
  TlsPems pems_ ABSL_GUARDED_BY(mutex_);
  int64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  const std::shared_ptr<grpc::ServerCredentials> credentials_;
};

}  // namespace

std::vector<std::filesystem::path> TlsFiles::all() const {
  std::vector<std::filesystem::path> files = {certificate, key};
  if (!client_ca.empty()) files.push_back(client_ca);
  return files;
}

absl::StatusOr<TlsPems> ReadTlsFiles(const TlsFiles& files) {
  absl::StatusOr<std::string> certificate_pem = ReadWholeFile(files.certificate);
  if (!certificate_pem.ok()) return certificate_pem.status();
  absl::StatusOr<std::string> key_pem = ReadWholeFile(files.key);
  if (!key_pem.ok()) return key_pem.status();
  TlsPems pems{*std::move(certificate_pem), *std::move(key_pem), ""};

  const absl::StatusOr<Certificate> certificate =
      FirstCertificate(pems.certificate, files.certificate);
  if (!certificate.ok()) return certificate.status();
  const PrivateKey key(
      PEM_read_bio_PrivateKey(Memory(pems.key).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Bad(files.key, "not a PEM file of a private key without passphrase");
  const bool match = X509_check_private_key(certificate->get(), key.get()) == 1;
  ERR_clear_error();
  if (!match) {
    return Bad(files.key,
               absl::StrCat("not the key of the certificate in ", files.certificate.string()));
  }

  if (!files.client_ca.empty()) {
    absl::StatusOr<std::string> client_ca = ReadWholeFile(files.client_ca);
    if (!client_ca.ok()) return client_ca.status();
    pems.client_ca = *std::move(client_ca);
    const absl::StatusOr<Certificate> first = FirstCertificate(pems.client_ca, files.client_ca);
    if (!first.ok()) return first.status();
  }
  return pems;
}

absl::StatusOr<std::unique_ptr<Tls>> Tls::Open(const TlsFiles& files) {
  absl::StatusOr<TlsPems> pems = ReadTlsFiles(files);
  if (!pems.ok()) return pems.status();
  WarnOf(*pems, files);
  return std::make_unique<TlsImpl>(files, *std::move(pems));
}

}  // namespace epo
