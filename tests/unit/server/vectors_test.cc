#include "server/vectors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

std::string Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

v1::UploadVectorRequest Npy(const std::string& shape, const std::vector<float>& values) {
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }\n";
  v1::UploadVectorRequest request;
  request.set_npy(std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) +
                  std::string(1, '\0') + header + Bytes(values));
  return request;
}

v1::UploadVectorRequest Safetensors(const std::string& header, const std::string& data,
                                    const std::string& tensor = "") {
  const uint64_t size = header.size();
  v1::UploadVectorRequest request;
  request.set_safetensors(std::string(reinterpret_cast<const char*>(&size), 8) + header + data);
  request.set_tensor(tensor);
  return request;
}

class VectorsTest : public StoreDirTest {
 protected:
  absl::StatusOr<v1::UploadedVector> Upload(const v1::UploadVectorRequest& request,
                                            const std::string& client = "alice",
                                            const Limits& limits = {}) {
    const StorageGuard storage(*store_, directory_, storage_);
    Vectors vectors(*store_, limits);
    return vectors.Upload({.client = client}, storage, request);
  }
  std::string WhyNot(const v1::UploadVectorRequest& request) {
    const auto uploaded = Upload(request);
    EXPECT_EQ(uploaded.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(uploaded.status().message());
  }

  StorageLimits storage_{.min_free_bytes = 0};
};

TEST_F(VectorsTest, TheSameNumbersHaveTheSameName) {
  const auto npy = Upload(Npy("(2, 2)", {1, 2, 3, -0.5F}));
  ASSERT_TRUE(npy.ok()) << npy.status();
  EXPECT_THAT(npy->name(), MatchesRegex("v[0-9a-f]{32}"));
  EXPECT_EQ(npy->rows(), 2);
  EXPECT_EQ(npy->width(), 2);
  const auto again =
      Upload(Safetensors(R"({"w":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}})",
                         std::string("\x80\x3f\x00\x40\x40\x40\x00\xbf", 8)));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->name(), npy->name());
  EXPECT_NE(Upload(Npy("(4,)", {1, 2, 3, -0.5F}))->name(), npy->name());
  EXPECT_NE(Upload(Npy("(2, 2)", {1, 2, 3, 0.5F}))->name(), npy->name());
}

TEST_F(VectorsTest, RowsComeBackAfterARestart) {
  const std::string name = Upload(Npy("(3, 2)", {1, 2, 3, 4, 5, 6}))->name();
  store_.reset();
  store_ = *Store::Open(directory_);
  const Vectors vectors(*store_, {});
  EXPECT_THAT(**vectors.Row(name, 0), ElementsAre(1, 2));
  const auto last = vectors.Row(name, 2);
  EXPECT_THAT(**last, ElementsAre(5, 6));
  EXPECT_EQ(*vectors.Row(name, 2), *last) << "not shared";
  for (const int row : {-1, 3, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    EXPECT_EQ(vectors.Row(name, row).status().code(), absl::StatusCode::kOutOfRange) << row;
  }
  EXPECT_THAT(std::string(vectors.Row(name, 3).status().message()), HasSubstr("has 3 rows"));
  const auto unknown = vectors.Row("v00000000000000000000000000000000", 0);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("upload-vector"));
}

TEST_F(VectorsTest, CountAgainstTheFirstWhoUploads) {
  const Limits two{.vectors_per_client = 2};
  ASSERT_TRUE(Upload(Npy("(1,)", {1}), "alice", two).ok());
  ASSERT_TRUE(Upload(Npy("(1,)", {2}), "alice", two).ok());
  const auto third = Upload(Npy("(1,)", {3}), "alice", two);
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(third.status().message()), HasSubstr("--max-vectors"));
  EXPECT_TRUE(Upload(Npy("(1,)", {1}), "alice", two).ok()) << "a repeat";
  // Alice's are not Bob's.
  for (const float value : {1.0F, 2.0F, 3.0F, 4.0F}) {
    EXPECT_TRUE(Upload(Npy("(1,)", {value}), "bob", two).ok()) << value;
  }
  EXPECT_FALSE(Upload(Npy("(1,)", {5}), "bob", two).ok());
  EXPECT_TRUE(Upload(Npy("(1,)", {3}), "alice", two).ok()) << "Bob's";
}

TEST_F(VectorsTest, SayWhatTheyCannotTake) {
  EXPECT_THAT(WhyNot({}), HasSubstr("content: is required"));
  EXPECT_THAT(WhyNot(Npy("(0,)", {})), HasSubstr("npy: its shape is [0], empty"));
  EXPECT_THAT(WhyNot(Npy("(2,)", {0, 0})), HasSubstr("npy: is all 0"));
  EXPECT_THAT(WhyNot(Npy("(2,)", {1, std::numeric_limits<float>::quiet_NaN()})),
              HasSubstr("npy: holds nan as float32 in row 0 at index 1"));
  v1::UploadVectorRequest named = Npy("(1,)", {1});
  named.set_tensor("w");
  EXPECT_THAT(WhyNot(named), HasSubstr("tensor: belongs to safetensors"));
  EXPECT_THAT(WhyNot(Safetensors("{}", "")), HasSubstr("safetensors: holds no tensor"));
  EXPECT_THAT(WhyNot(Safetensors("{", "")), HasSubstr("safetensors: its header"));
  const std::string two = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                          R"("b":{"dtype":"I32","shape":[1],"data_offsets":[4,8]}})";
  const std::string data = Bytes({1, 2});
  EXPECT_THAT(WhyNot(Safetensors(two, data)), HasSubstr("tensor: is required: the file holds 2"));
  EXPECT_THAT(WhyNot(Safetensors(two, data, "c")), HasSubstr("\"c\" is not in the file"));
  EXPECT_THAT(WhyNot(Safetensors(two, data, "b")), HasSubstr("is of I32"));
  EXPECT_TRUE(Upload(Safetensors(two, data, "a")).ok());
  EXPECT_THAT(WhyNot(Safetensors(R"({"a":{"dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]}})",
                                 Bytes({1}))),
              HasSubstr("tensor: its shape is [1, 1, 1]"));
  EXPECT_THAT(
      WhyNot(Safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", Bytes({0}))),
      HasSubstr("safetensors: is all 0"));
}

TEST_F(VectorsTest, AreBounded) {
  const v1::UploadVectorRequest request = Npy("(2,)", {1, 2});
  const int bytes = static_cast<int>(request.npy().size());
  EXPECT_TRUE(Upload(request, "alice", {.vector_bytes = bytes}).ok());
  const auto large = Upload(request, "alice", {.vector_bytes = bytes - 1});
  EXPECT_EQ(large.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(large.status().message()), HasSubstr("--max-vector-bytes"));
  // No room on the disk; one that is there takes none.
  storage_.max_state_bytes = 1;
  EXPECT_TRUE(Upload(request).ok());
  EXPECT_EQ(Upload(Npy("(1,)", {1})).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace epo
