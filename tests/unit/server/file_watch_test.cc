#include "server/file_watch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace epo {
namespace {

class FileWatchTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::path(testing::TempDir()) / absl::StrCat("file_watch.", getpid());
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name) << text;
  }
  // Waits until there were so many changes; false after 10 s.
  bool Changed(int times) const {
    for (int i = 0; i < 10'000 && changes_ < times; ++i) absl::SleepFor(absl::Milliseconds(1));
    return changes_ == times;
  }

  std::filesystem::path dir_;
  std::atomic<int> changes_ = 0;
};

TEST_F(FileWatchTest, SeesEditsRenamesLinksAndRemovals) {
  Write("a", "one");
  Write("b", "two");
  std::filesystem::create_symlink("a", dir_ / "link");
  FileWatch watch(absl::Milliseconds(2));
  watch.Add({dir_ / "a", dir_ / "link"}, [this] { ++changes_; });
  ASSERT_TRUE(Changed(1));  // as found
  // One write, where truncating first would be another change.
  std::ofstream(dir_ / "a", std::ios::app) << "longer";
  ASSERT_TRUE(Changed(2));
  std::filesystem::create_symlink("b", dir_ / "other");
  std::filesystem::rename(dir_ / "other", dir_ / "link");
  ASSERT_TRUE(Changed(3));
  Write("c", "longer");
  std::filesystem::rename(dir_ / "c", dir_ / "a");
  ASSERT_TRUE(Changed(4));
  std::filesystem::remove(dir_ / "a");
  ASSERT_TRUE(Changed(5));
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(changes_, 5);
}

TEST_F(FileWatchTest, ReadsWholeFilesThatAreNotTooLarge) {
  Write("bytes", std::string("a\0b\n", 4));
  EXPECT_EQ(*ReadWholeFile(dir_ / "bytes"), std::string("a\0b\n", 4));
  Write("empty", "");
  EXPECT_EQ(*ReadWholeFile(dir_ / "empty"), "");
  Write("large", std::string((1 << 20) + 1, 'x'));
  for (const char* name : {"missing", "large", "."}) {
    const auto text = ReadWholeFile(dir_ / name);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kFailedPrecondition) << name;
    EXPECT_TRUE(absl::StrContains(text.status().message(), (dir_ / name).string()));
  }
}

}  // namespace
}  // namespace epo
