#include "client/cli/credentials.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string_view>
#include <tuple>
#include <utility>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

constexpr char kCertificate[] = "-----BEGIN CERTIFICATE-----";
constexpr char kPrivateKey[] = " PRIVATE KEY-----";

// `flag` names the file, and `mark` is in every such file. An empty path gives an empty text.
absl::StatusOr<std::string> ReadFile(const std::string& path, const char* flag,
                                     const char* mark = "") {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (file) content << file.rdbuf();
  if (!file || content.str().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": cannot read ", path, ": ",
                                                   file ? "it is empty" : std::strerror(errno)));
  }
  if (content.str().find(mark) == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", path, " is no PEM file: it holds no \"", mark, "\""));
  }
  return content.str();
}

void WarnIfOthersCanRead(const std::string& path) {
  struct stat info {};
  if (path.empty() || stat(path.c_str(), &info) != 0 || (info.st_mode & S_IROTH) == 0) return;
  const std::string name = Escape(path);
  std::fprintf(stderr, "epo: everybody on this machine can read %s; chmod 600 %s\n", name.c_str(),
               name.c_str());
}

bool IsApiKey(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
}

}  // namespace

bool IsLocal(const std::string& server) {
  for (const std::string_view start : {"127.", "localhost:", "[::1]", "unix:"}) {
    if (std::string_view(server).substr(0, start.size()) == start) return true;
  }
  return false;
}

absl::StatusOr<Credentials> ReadCredentials(const Settings& settings) {
  Credentials credentials;
  credentials.tls = settings.tls;
  for (const auto& [path, flag, mark, pem] :
       {std::tuple(&settings.tls_ca, "--tls-ca", kCertificate, &credentials.ca),
        std::tuple(&settings.tls_cert, "--tls-cert", kCertificate, &credentials.certificate),
        std::tuple(&settings.tls_key, "--tls-key", kPrivateKey, &credentials.key)}) {
    absl::StatusOr<std::string> text = ReadFile(*path, flag, mark);
    if (!text.ok()) return text.status();
    *pem = *std::move(text);
  }
  absl::StatusOr<std::string> from_file = ReadFile(settings.api_key_file, "--api-key-file");
  if (!from_file.ok()) return from_file.status();
  const bool from_variable = settings.api_key_file.empty();
  credentials.api_key =
      std::string(absl::StripAsciiWhitespace(from_variable ? settings.api_key : *from_file));
  if ((!from_variable || !settings.api_key.empty()) && !IsApiKey(credentials.api_key)) {
    return absl::InvalidArgumentError(
        absl::StrCat(from_variable ? "EPO_API_KEY" : settings.api_key_file,
                     " holds no API key: one word, as epo-server --new-api-key prints it"));
  }
  if (!credentials.api_key.empty() && !settings.tls && !IsLocal(settings.server)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the API key would go to ", settings.server,
                     " where everybody on the way can read it; give --tls (or EPO_TLS=1)"));
  }
  WarnIfOthersCanRead(settings.api_key_file);
  WarnIfOthersCanRead(settings.tls_key);
  return credentials;
}

}  // namespace epo::cli
