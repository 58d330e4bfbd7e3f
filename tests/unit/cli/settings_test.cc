#include "client/cli/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace epo::cli {
namespace {

using testing::HasSubstr;

absl::StatusOr<PartialSettings> Profile(const std::string& text) {
  // Tests run side by side, each in a process of its own.
  const std::string path = absl::StrCat(testing::TempDir(), "epo-profile.", getpid(), ".toml");
  std::ofstream(path) << text;
  return ReadProfile(path);
}

TEST(SettingsTest, FlagsOverEnvironmentOverProfileOverDefaults) {
  const PartialSettings nothing;
  const PartialSettings flags{"flag:1", "jsonl"};
  const PartialSettings environment{"env:1", std::nullopt};
  const PartialSettings profile{"profile:1", "json"};
  EXPECT_EQ(ResolveSettings(nothing, nothing, nothing)->server, "127.0.0.1:50051");
  EXPECT_EQ(ResolveSettings(nothing, nothing, nothing)->format, Format::kTable);
  EXPECT_EQ(ResolveSettings(nothing, nothing, profile)->server, "profile:1");
  EXPECT_EQ(ResolveSettings(nothing, environment, profile)->server, "env:1");
  EXPECT_EQ(ResolveSettings(nothing, environment, profile)->format, Format::kJson);
  EXPECT_EQ(ResolveSettings(flags, environment, profile)->server, "flag:1");
  EXPECT_EQ(ResolveSettings(flags, environment, profile)->format, Format::kJsonl);
}

TEST(SettingsTest, AnAddressWithoutAPortGetsTheServersDefault) {
  EXPECT_EQ(ResolveSettings({"gpu1", std::nullopt}, {}, {})->server, "gpu1:50051");
  EXPECT_EQ(ResolveSettings({"[::1]:7", std::nullopt}, {}, {})->server, "[::1]:7");
}

TEST(SettingsTest, BadValuesAreNamed) {
  EXPECT_THAT(std::string(ResolveSettings({std::nullopt, "xml"}, {}, {}).status().message()),
              HasSubstr("'xml'"));
  EXPECT_FALSE(ResolveSettings({"", std::nullopt}, {}, {}).ok());
}

TEST(SettingsTest, AFileForTlsTurnsItOnUnlessASourceSaysNo) {
  PartialSettings ca;
  ca.tls_ca = "ca.pem";
  EXPECT_TRUE(ResolveSettings({}, {}, ca)->tls);
  EXPECT_EQ(ResolveSettings({}, {}, ca)->tls_ca, "ca.pem");
  EXPECT_FALSE(ResolveSettings({}, {}, {})->tls);
  for (const auto& [text, on] :
       {std::pair{"1", true}, {"true", true}, {"on", true}, {"0", false}, {"no", false}}) {
    PartialSettings environment;
    environment.tls = text;
    EXPECT_EQ(ResolveSettings({}, environment, ca)->tls, on) << text;
    EXPECT_EQ(ResolveSettings({}, environment, {})->tls, on) << text;
  }
  PartialSettings bad;
  bad.tls = "perhaps";
  EXPECT_THAT(std::string(ResolveSettings({}, bad, {}).status().message()), HasSubstr("'perhaps'"));
}

TEST(SettingsTest, ACertificateAndItsKeyComeTogether) {
  PartialSettings certificate;
  certificate.tls_cert = "cert.pem";
  PartialSettings key;
  key.tls_key = "key.pem";
  EXPECT_THAT(std::string(ResolveSettings(certificate, {}, {}).status().message()),
              HasSubstr("--tls-key"));
  EXPECT_THAT(std::string(ResolveSettings({}, {}, key).status().message()),
              HasSubstr("--tls-cert"));
  const auto both = ResolveSettings(certificate, {}, key);
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_TRUE(both->tls);
  EXPECT_EQ(both->tls_key, "key.pem");
}

TEST(SettingsTest, TheNearestSourceOfAnApiKeyCounts) {
  PartialSettings flags;
  flags.api_key_file = "flag";
  PartialSettings environment;
  environment.api_key = "variable";
  environment.api_key_file = "file";
  PartialSettings profile;
  profile.api_key_file = "profile";
  const auto key = [](const absl::StatusOr<Settings>& settings) {
    return settings->api_key + ";" + settings->api_key_file;
  };
  EXPECT_EQ(key(ResolveSettings(flags, environment, profile)), ";flag");
  EXPECT_EQ(key(ResolveSettings({}, environment, profile)), "variable;");
  environment.api_key.reset();
  EXPECT_EQ(key(ResolveSettings({}, environment, profile)), ";file");
  EXPECT_EQ(key(ResolveSettings({}, {}, profile)), ";profile");
}

TEST(ProfileTest, ReadsHowToConnect) {
  const auto profile = Profile(
      "tls = true\ntls-ca = \"ca.pem\"\ntls-cert = \"c\"\ntls-key = \"k\"\napi-key-file = \"a\"\n");
  ASSERT_TRUE(profile.ok()) << profile.status();
  const auto settings = ResolveSettings({}, {}, *profile);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_TRUE(settings->tls);
  EXPECT_EQ(settings->tls_ca + settings->tls_cert + settings->tls_key + settings->api_key_file,
            "ca.pemcka");
  // A key in plain belongs into a file of its own.
  EXPECT_FALSE(Profile("api-key = \"epo_abc\"\n").ok());
}

TEST(ProfileTest, ReadsToml) {
  const auto profile = Profile("# mine\nserver = \"gpu1:50051\"\noutput = 'json' # machine\n");
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->server, "gpu1:50051");
  EXPECT_EQ(profile->output, "json");
}

TEST(ProfileTest, AMissingFileSaysNothing) {
  const auto profile = ReadProfile("/nonexistent/config.toml");
  ASSERT_TRUE(profile.ok());
  EXPECT_FALSE(profile->server);
}

TEST(ProfileTest, UnknownKeysAreNamedWithTheirFile) {
  for (const char* text : {"sever = \"x\"\n", "[server]\nname = \"x\"\n"}) {
    const auto profile = Profile(text);
    ASSERT_FALSE(profile.ok()) << text;
    EXPECT_THAT(std::string(profile.status().message()), HasSubstr(".toml: unknown key"));
  }
  EXPECT_FALSE(Profile("server = [\"a\", \"b\"]\n").ok());
}

}  // namespace
}  // namespace epo::cli
