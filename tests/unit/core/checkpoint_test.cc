#include "core/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/unit/core/temp_dir.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kIndex[] = "model.safetensors.index.json";

// Two shards of one tensor each, with their index.
void WriteShards(const TempDir& dir) {
  dir.Write("one.safetensors", Safetensors({{"a", {"U8", {2}, "aa"}}}));
  dir.Write("two.safetensors", Safetensors({{"b", {"U8", {3}, "bbb"}}}));
  dir.Write(kIndex, R"({"metadata": {"total_size": 5},
                        "weight_map": {"b": "two.safetensors", "a": "one.safetensors"}})");
}

std::string Bytes(const Checkpoint::Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.view.data), tensor.view.bytes};
}

TEST(CheckpointTest, OpensOneFile) {
  const TempDir dir;
  dir.Write("model.safetensors", Safetensors({{"a", {"U8", {2}, "xy"}}}));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->files().size(), 1U);
  const auto found = checkpoint->Find("a");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(Bytes(*found), "xy");
  const auto missing = checkpoint->Find("b");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("\"b\"")));
}

TEST(CheckpointTest, OpensShards) {
  const TempDir dir;
  WriteShards(dir);
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->files().size(), 2U);
  EXPECT_EQ(checkpoint->files()[0]->path().filename(), "one.safetensors");
  EXPECT_EQ(checkpoint->files()[1]->path().filename(), "two.safetensors");
  EXPECT_EQ(Bytes(*checkpoint->Find("a")), "aa");
  EXPECT_EQ(Bytes(*checkpoint->Find("b")), "bbb");
  const auto missing = checkpoint->Find("c");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr(kIndex), HasSubstr("\"c\"")));
}

// The hub's cache keeps files elsewhere and links to them.
TEST(CheckpointTest, FollowsLinks) {
  const TempDir blobs, dir;
  const auto blob = blobs.Write("0123abcd", Safetensors({{"a", {"U8", {2}, "xy"}}}));
  std::filesystem::create_symlink(blob, dir.path() / "model.safetensors");
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(Bytes(*checkpoint->Find("a")), "xy");
}

TEST(CheckpointTest, KeepsDataAliveWithItsTensor) {
  const TempDir dir;
  WriteShards(dir);
  Checkpoint::Tensor tensor;
  {
    const auto checkpoint = Checkpoint::Open(dir.path());
    tensor = *checkpoint->Find("b");
  }
  EXPECT_EQ(Bytes(tensor), "bbb");
}

TEST(CheckpointTest, NamesMissingFiles) {
  const TempDir dir;
  const auto none = Checkpoint::Open(dir.path());
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("model.safetensors"));

  WriteShards(dir);
  std::filesystem::remove(dir.path() / "two.safetensors");
  const auto shard = Checkpoint::Open(dir.path());
  EXPECT_EQ(shard.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(shard.status().message()), HasSubstr("two.safetensors"));
}

TEST(CheckpointTest, RefusesDamagedShard) {
  const TempDir dir;
  WriteShards(dir);
  std::filesystem::resize_file(dir.path() / "two.safetensors", 40);
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr("two.safetensors"));
}

TEST(CheckpointTest, RefusesLyingIndex) {
  const TempDir dir;
  WriteShards(dir);
  dir.Write(kIndex, R"({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(checkpoint.status().message()),
              AllOf(HasSubstr(kIndex), HasSubstr("\"b\""), HasSubstr("one.safetensors")));
}

// Even where the path that the index names is a good file.
TEST(CheckpointTest, RefusesPathsOutOfTheDirectory) {
  const TempDir dir;
  const std::string file = Safetensors({{"a", {"U8", {2}, "aa"}}});
  const auto outside = dir.Write("outside.safetensors", file);
  std::filesystem::create_directories(dir.path() / "model/sub");
  dir.Write("model/sub/inside.safetensors", file);
  const std::vector<Json> names = {"../outside.safetensors",
                                   outside.string(),
                                   "sub/inside.safetensors",
                                   "sub/../sub/inside.safetensors",
                                   "sub/",
                                   "",
                                   7,
                                   nullptr,
                                   Json::array({"a"})};
  for (const Json& name : names) {
    dir.Write(std::string("model/") + kIndex, Json{{"weight_map", {{"a", name}}}}.dump());
    const auto checkpoint = Checkpoint::Open(dir.path() / "model");
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(checkpoint.status().message()),
                AllOf(HasSubstr(kIndex), HasSubstr("\"a\""), HasSubstr(name.dump())));
  }
  for (const char* name : {".", ".."}) {
    dir.Write(std::string("model/") + kIndex, Json{{"weight_map", {{"a", name}}}}.dump());
    EXPECT_EQ(Checkpoint::Open(dir.path() / "model").status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(CheckpointTest, RefusesMalformedIndex) {
  const TempDir dir;
  for (const char* text : {"", "{", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": 1})"}) {
    dir.Write(kIndex, text);
    const auto checkpoint = Checkpoint::Open(dir.path());
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(checkpoint.status().message()),
                AllOf(HasSubstr(kIndex), HasSubstr("weight_map")));
  }
}

}  // namespace
}  // namespace epo
