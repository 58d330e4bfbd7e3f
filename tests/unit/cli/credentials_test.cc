#include "client/cli/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace epo::cli {
namespace {

using testing::HasSubstr;

constexpr char kCa[] = "-----BEGIN CERTIFICATE-----\nCA";
constexpr char kCertificate[] = "text\n-----BEGIN CERTIFICATE-----\nOWN";
constexpr char kKey[] = "-----BEGIN EC PRIVATE KEY-----\nKEY";

std::string File(const std::string& name, const std::string& text) {
  // Tests run side by side, each in a process of its own.
  const std::string path = absl::StrCat(testing::TempDir(), getpid(), ".", name);
  std::ofstream(path) << text;
  std::filesystem::permissions(path, std::filesystem::perms::owner_read);
  return path;
}

std::string Problem(const Settings& settings) {
  return std::string(ReadCredentials(settings).status().message());
}

TEST(CredentialsTest, ReadsFiles) {
  Settings settings;
  settings.server = "gpu1:50051";
  settings.tls = true;
  settings.tls_ca = File("ca.pem", kCa);
  settings.tls_cert = File("cert.pem", kCertificate);
  settings.tls_key = File("key.pem", kKey);
  settings.api_key_file = File("api-key", "epo_abc\n");
  const auto credentials = ReadCredentials(settings);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_TRUE(credentials->tls);
  EXPECT_EQ(credentials->ca, kCa);
  EXPECT_EQ(credentials->certificate, kCertificate);
  EXPECT_EQ(credentials->key, kKey);
  EXPECT_EQ(credentials->api_key, "epo_abc");
}

TEST(CredentialsTest, AKeyLeavesTheMachineOnlyWithTls) {
  Settings settings;
  settings.api_key = "epo_abc";
  for (const char* local : {"127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/epo"}) {
    settings.server = local;
    EXPECT_EQ(Problem(settings), "") << local;
  }
  for (const char* remote : {"gpu1:1", "10.0.0.7:1", "localhost.example.org:1", "dns:///gpu1:1"}) {
    settings.server = remote;
    settings.tls = false;
    EXPECT_THAT(Problem(settings), HasSubstr("give --tls")) << remote;
    settings.tls = true;
    EXPECT_EQ(Problem(settings), "") << remote;
  }
}

TEST(CredentialsTest, NamesTheFileThatCannotBeUsed) {
  for (const auto& [path, expected] :
       {std::pair<std::string, std::string>{"/nonexistent/x", "/nonexistent/x: No such file"},
        {File("empty", ""), "it is empty"}}) {
    Settings settings;
    settings.tls_ca = path;
    EXPECT_THAT(Problem(settings), HasSubstr("--tls-ca: cannot read")) << path;
    EXPECT_THAT(Problem(settings), HasSubstr(expected));
    settings = {};
    settings.api_key_file = path;
    EXPECT_THAT(Problem(settings), HasSubstr("--api-key-file: cannot read")) << path;
  }
}

TEST(CredentialsTest, RefusesWhatIsNoPem) {
  Settings settings;
  settings.tls_cert = File("key-as-cert.pem", kKey);
  settings.tls_key = settings.tls_cert;
  EXPECT_THAT(Problem(settings), HasSubstr("--tls-cert: "));
  settings.tls_cert = File("cert-as-key.pem", kCa);
  settings.tls_key = settings.tls_cert;
  EXPECT_THAT(Problem(settings), HasSubstr("--tls-key: "));
}

TEST(CredentialsTest, RefusesWhatIsNoKey) {
  for (const char* bad : {" \n", "two words", "bell\x07", "umlaut \xc3\xa4"}) {
    Settings settings;
    settings.api_key = bad;
    EXPECT_THAT(Problem(settings), HasSubstr("EPO_API_KEY holds no API key")) << bad;
    settings = {};
    settings.api_key_file = File("bad-key", bad);
    EXPECT_THAT(Problem(settings), HasSubstr("bad-key holds no API key")) << bad;
    std::filesystem::remove(settings.api_key_file);
  }
}

}  // namespace
}  // namespace epo::cli
