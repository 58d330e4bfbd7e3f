#include "server/api_keys.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// SHA-256 of "one" and of "two".
constexpr char kOne[] = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
constexpr char kTwo[] = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

class KeyFile {
 public:
  KeyFile()
      : path_(std::filesystem::path(testing::TempDir()) / absl::StrCat("api-keys.", getpid())) {}
  ~KeyFile() { std::filesystem::remove(path_); }

  const std::filesystem::path& path() const { return path_; }
  void Write(const std::string& text) const { std::ofstream(path_) << text; }

 private:
  const std::filesystem::path path_;
};

std::string Problem(const std::string& text) {
  return std::string(ParseApiKeys(text, "keys.txt").status().message());
}

TEST(ApiKeysTest, ReadsNamesRolesAndHashes) {
  const auto keys =
      ParseApiKeys(absl::StrCat("# ours\n\nalice submit sha256:", kOne,
                                " # since May # 2026\r\n  ops.team@lab\tread,admin  sha256:", kTwo),
                   "keys.txt");
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2);
  EXPECT_EQ((*keys)[0].client, "alice");
  EXPECT_EQ((*keys)[0].role, Role::kSubmit);
  EXPECT_EQ((*keys)[1].client, "ops.team@lab");
  EXPECT_EQ((*keys)[1].role, Role::kAdmin);
}

TEST(ApiKeysTest, NamesTheLineThatIsNoKey) {
  const std::string good = absl::StrCat("alice submit sha256:", kOne, "\n");
  for (const auto& [line, expected] : {
           std::pair<std::string, std::string>{"bob read", "a line is NAME ROLES sha256:HEX"},
           {absl::StrCat("bob read sha256:", kTwo, " x"), "a line is NAME ROLES sha256:HEX"},
           {absl::StrCat("bob owner sha256:", kTwo), "\"owner\" is no role"},
           {absl::StrCat("bob read, sha256:", kTwo), "\"\" is no role"},
           {absl::StrCat("b/ob read sha256:", kTwo), "\"b/ob\" is no name"},
           {absl::StrCat(std::string(65, 'b'), " read sha256:", kTwo), "is no name"},
           {absl::StrCat("bob read sha256:", kTwo, "0"), "64 hexadecimal digits"},
           {absl::StrCat("bob read sha256:g", kTwo + 1), "64 hexadecimal digits"},
           {absl::StrCat("bob read ", kTwo), "64 hexadecimal digits"},
           {absl::StrCat("bob read sha256:", kOne), "this is the key of alice above"},
       }) {
    const std::string problem = Problem(good + line);
    EXPECT_TRUE(absl::StartsWith(problem, "keys.txt:2: ")) << problem;
    EXPECT_TRUE(absl::StrContains(problem, expected)) << problem;
  }
  EXPECT_TRUE(absl::StrContains(Problem("# none\n"), "keys.txt holds no key"));
}

TEST(ApiKeysTest, AKeyInPlainIsNotRepeated) {
  const std::string problem = Problem("alice submit epo_plain");
  EXPECT_FALSE(absl::StrContains(problem, "epo_plain")) << problem;
}

TEST(ApiKeysTest, WhatMakesAKeyIsFoundByIt) {
  const auto made = MakeApiKey("alice:read,submit");
  const auto other = MakeApiKey("bob:admin");
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(made->key.size(), 4 + 43);
  EXPECT_NE(made->key, other->key);
  EXPECT_FALSE(absl::StrContains(made->line, made->key));

  KeyFile file;
  file.Write(absl::StrCat(made->line, "\n", other->line, "\n"));
  const auto keys = ApiKeys::Open(file.path());
  ASSERT_TRUE(keys.ok()) << keys.status();
  const auto alice = (*keys)->Find(made->key);
  ASSERT_NE(alice, nullptr);
  EXPECT_EQ(alice->client, "alice");
  EXPECT_EQ(alice->role, Role::kSubmit);
  EXPECT_EQ((*keys)->Find(other->key)->client, "bob");
  EXPECT_EQ((*keys)->Find(""), nullptr);
  EXPECT_EQ((*keys)->Find(made->key + "x"), nullptr);
  EXPECT_EQ((*keys)->Find(made->key.substr(1)), nullptr);
}

TEST(ApiKeysTest, RefusesToMakeAKeyForNobodyOrNothing) {
  for (const char* bad : {"", ":read", "alice", "alice:", "alice:king", "al ice:read"}) {
    EXPECT_EQ(MakeApiKey(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ApiKeysTest, ReloadingTakesTheNewKeysOrKeepsTheOld) {
  KeyFile file;
  EXPECT_TRUE(absl::StrContains(ApiKeys::Open(file.path()).status().message(), "No such file"));
  file.Write(absl::StrCat("alice submit sha256:", kOne));
  const auto keys = ApiKeys::Open(file.path());
  ASSERT_TRUE(keys.ok()) << keys.status();
  const auto held = (*keys)->Find("one");
  ASSERT_NE(held, nullptr);

  for (const char* bad : {"", "alice submit\n"}) {
    file.Write(bad);
    (*keys)->Reload();
    EXPECT_NE((*keys)->Find("one"), nullptr) << bad;
  }
  file.Write(absl::StrCat("bob read sha256:", kTwo));
  (*keys)->Reload();
  EXPECT_EQ((*keys)->Find("one"), nullptr);
  EXPECT_EQ((*keys)->Find("two")->client, "bob");
  EXPECT_EQ(held->client, "alice");
}

}  // namespace
}  // namespace epo
