#include "client/cli/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace epo::cli {
namespace {

using testing::HasSubstr;

absl::StatusOr<PartialSettings> Profile(const std::string& text) {
  const std::string path = testing::TempDir() + "/epo-profile.toml";
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
    EXPECT_THAT(std::string(profile.status().message()),
                HasSubstr("epo-profile.toml: unknown key"));
  }
  EXPECT_FALSE(Profile("server = [\"a\", \"b\"]\n").ok());
}

}  // namespace
}  // namespace epo::cli
