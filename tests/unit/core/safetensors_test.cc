#include "core/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
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

Json Entry(const std::string& dtype, const Json& shape, const Json& offsets) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

TEST(SafetensorsTest, ReadsTensors) {
  const TempDir dir;
  const std::string bytes = Safetensors({{"b", {"F16", {2, 3}, "abcdefghijkl"}},
                                         {"a", {"I64", {}, "01234567"}},
                                         {"empty", {"F32", {0, 4}, ""}}});
  const auto path = dir.Write("model.safetensors", bytes);
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), path);
  EXPECT_EQ((*file)->header()[0], '{');
  EXPECT_EQ((*file)->header().back(), '}');

  const TensorView* b = (*file)->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, "F16");
  EXPECT_EQ(b->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(b->data), b->bytes), "abcdefghijkl");
  const TensorView* a = (*file)->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_TRUE(a->shape.empty());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(a->data), a->bytes), "01234567");
  ASSERT_NE((*file)->Find("empty"), nullptr);
  EXPECT_EQ((*file)->Find("empty")->bytes, 0U);
  EXPECT_EQ((*file)->Find("c"), nullptr);
  EXPECT_EQ((*file)->Find("__metadata__"), nullptr);
}

TEST(SafetensorsTest, ReadsAFilesContent) {
  const std::string bytes = Safetensors({{"b", {"F16", {2}, "abcd"}}, {"a", {"U8", {3}, "efg"}}});
  const auto file = SafetensorsFile::FromBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Names(), (std::vector<std::string>{"a", "b"}));
  const TensorView* a = (*file)->Find("a");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(a->data), a->bytes), "efg");
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(SafetensorsFile::FromBytes(bytes.substr(0, size)).ok()) << size;
  }
}

// A header may be padded with spaces, and list tensors in another order than their data.
TEST(SafetensorsTest, ReadsPaddedHeaderInAnyOrder) {
  const TempDir dir;
  const Json header = {{"a", Entry("U8", {2}, {3, 5})}, {"b", Entry("U8", {3}, {0, 3})}};
  const auto file =
      SafetensorsFile::Open(dir.Write("x", RawSafetensors(header.dump() + "     ", "12345")));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(std::memcmp((*file)->Find("a")->data, "45", 2), 0);
  EXPECT_EQ(std::memcmp((*file)->Find("b")->data, "123", 3), 0);
}

TEST(SafetensorsTest, NamesFileAndTensorOfBadEntry) {
  const std::string eight = "12345678";
  struct Case {
    Json entry;
    std::string says;
  };
  const std::vector<Case> cases = {
      {Entry("F32", {3}, {0, 8}), "12"},
      {Entry("F32", {2}, {0, 9}), "outside"},
      {Entry("F32", {2}, {4, 12}), "outside"},
      {Entry("F32", {2}, {8, 0}), "data_offsets"},
      {Entry("F32", {2}, {-8, 0}), "data_offsets"},
      {Entry("F32", {2}, {0, 1e300}), "data_offsets"},
      {Entry("F32", {2}, {0, UINT64_MAX}), "outside"},
      {Entry("F32", {2}, {0}), "data_offsets"},
      {Entry("F32", {2}, "0-8"), "data_offsets"},
      {Entry("F32", {-2}, {0, 8}), "shape"},
      {Entry("F32", {2.0}, {0, 8}), "shape"},
      {Entry("F32", {"2"}, {0, 8}), "shape"},
      {Entry("F32", 2, {0, 8}), "shape"},
      // Products that wrap around to 8 bytes, in 64 bits.
      {Entry("F32", {uint64_t{1} << 62, 4, 2}, {0, 8}), "overflow"},
      {Entry("U8", {UINT64_MAX, 8}, {0, 8}), "overflow"},
      {Entry("F64", {uint64_t{1} << 63, 0}, {0, 0}), "overflow"},
      {Entry("F33", {2}, {0, 8}), "F33"},
      {Json{{"shape", {2}}, {"data_offsets", {0, 8}}}, "dtype"},
      {Json{{"dtype", 5}, {"shape", {2}}, {"data_offsets", {0, 8}}}, "dtype"},
      {Json("F32"), "dtype"},
      {Json(nullptr), "dtype"},
  };
  const TempDir dir;
  for (const Case& c : cases) {
    const Json header = {{"layer.weight", c.entry}};
    const auto file =
        SafetensorsFile::Open(dir.Write("bad.safetensors", RawSafetensors(header.dump(), eight)));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << c.entry;
    EXPECT_THAT(
        std::string(file.status().message()),
        AllOf(HasSubstr("bad.safetensors"), HasSubstr("\"layer.weight\""), HasSubstr(c.says)))
        << c.entry;
  }
}

TEST(SafetensorsTest, RefusesOverlapsHolesAndStrayBytes) {
  struct Case {
    Json header;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{{"a", Entry("U8", {5}, {0, 5})}, {"b", Entry("U8", {5}, {3, 8})}}, "\"b\" overlaps"},
      {{{"a", Entry("U8", {8}, {0, 8})}, {"b", Entry("U8", {8}, {0, 8})}}, "overlaps"},
      {{{"a", Entry("U8", {8}, {0, 8})}, {"b", Entry("U8", {2}, {3, 5})}}, "\"b\" overlaps"},
      {{{"a", Entry("U8", {3}, {0, 3})}, {"b", Entry("U8", {4}, {4, 8})}}, "\"b\" leaves a hole"},
      {{{"a", Entry("U8", {7}, {1, 8})}}, "\"a\" leaves a hole"},
      {{{"a", Entry("U8", {6}, {0, 6})}}, "2 bytes that belong to no tensor"},
      {Json::object(), "8 bytes that belong to no tensor"},
  };
  const TempDir dir;
  for (const Case& c : cases) {
    const auto file = SafetensorsFile::Open(
        dir.Write("bad.safetensors", RawSafetensors(c.header.dump(), "12345678")));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << c.header;
    EXPECT_THAT(std::string(file.status().message()),
                AllOf(HasSubstr("bad.safetensors"), HasSubstr(c.says)));
  }
}

TEST(SafetensorsTest, RefusesBadHeaders) {
  const std::string good = Safetensors({{"a", {"F32", {2}, "12345678"}}});
  const auto with_length = [&](uint64_t length) {
    std::string bytes = good;
    std::memcpy(bytes.data(), &length, sizeof(length));
    return bytes;
  };
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  const std::vector<std::string> bad = {
      "",
      "1234567",
      with_length(good.size() - 8 + 1),
      with_length(UINT64_MAX),
      with_length(UINT64_MAX - 7),
      with_length(0),
      with_length(5),
      RawSafetensors("not json", ""),
      RawSafetensors("[1, 2]", ""),
      RawSafetensors("{\"a\": \xFF}", ""),
      RawSafetensors(std::string(100'000, '['), ""),
      RawSafetensors("{\"a\":" + std::string(100'000, '['), ""),
      RawSafetensors(R"({"a":{"dtype":"F32","shape":[)" + deep + R"(],"data_offsets":[0,0]}})", ""),
      RawSafetensors(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,)" + deep + "]}}", ""),
  };
  const TempDir dir;
  for (const std::string& bytes : bad) {
    const auto file = SafetensorsFile::Open(dir.Write("bad.safetensors", bytes));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << bytes.substr(0, 40);
    EXPECT_THAT(std::string(file.status().message()), HasSubstr("bad.safetensors: "));
  }
  EXPECT_TRUE(SafetensorsFile::Open(dir.Write("good.safetensors", good)).ok());
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const TempDir dir;
  const std::string good = Safetensors({{"a", {"F32", {2}, "12345678"}}, {"b", {"U8", {1}, "9"}}});
  for (size_t size = 0; size < good.size(); ++size) {
    const auto file = SafetensorsFile::Open(dir.Write("cut.safetensors", good.substr(0, size)));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr("cut.safetensors")) << size;
  }
}

TEST(SafetensorsTest, RefusesWhatIsNoFile) {
  const TempDir dir;
  const auto missing = SafetensorsFile::Open(dir.path() / "none.safetensors");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("none.safetensors"));
  EXPECT_EQ(SafetensorsFile::Open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsFile::Open("/dev/null").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epo
