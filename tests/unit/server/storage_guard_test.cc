#include "server/storage_guard.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"
#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

std::string Reason(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo");
  if (payload.has_value()) info.ParseFromString(std::string(*payload));
  return info.reason();
}

class StorageGuardTest : public StoreDirTest {};

TEST_F(StorageGuardTest, AdmitsWhereThereIsRoom) {
  EXPECT_TRUE(StorageGuard(*store_, directory_, {.min_free_bytes = 0}).Admit().ok());
  EXPECT_TRUE(
      StorageGuard(*store_, directory_, {.max_state_bytes = 1 << 30, .min_free_bytes = 1 << 10})
          .Admit()
          .ok());
}

TEST_F(StorageGuardTest, LeavesTheDiskItsReserve) {
  const StorageGuard guard(*store_, directory_,
                           {.min_free_bytes = std::numeric_limits<int64_t>::max()});
  const absl::Status status = guard.Admit();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(Reason(status), "DISK_ALMOST_FULL");
  EXPECT_FALSE(status.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
}

TEST_F(StorageGuardTest, RoomThatAJobLeavesIsRoomForAnother) {
  const StorageGuard guard(*store_, directory_, {.max_state_bytes = 24 << 20, .min_free_bytes = 0});
  Create("small", v1::Job::SUCCEEDED);
  EXPECT_TRUE(guard.Admit().ok());
  Create("big", v1::Job::SUCCEEDED, 1, 25 << 20);
  const absl::Status status = guard.Admit();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(Reason(status), "STATE_LIMIT_REACHED");
  ASSERT_TRUE(store_->DeleteJob("big").ok());
  // The write-ahead log is cut back by the next write.
  Create("next", v1::Job::SUCCEEDED);
  EXPECT_TRUE(guard.Admit().ok()) << guard.Admit();
}

TEST_F(StorageGuardTest, RefusesWhileTheStoreRefuses) {
  StorageGuard guard(*store_, directory_, {.min_free_bytes = 0});
  guard.SetWrites(absl::ResourceExhaustedError("the disk is full"));
  const absl::Status status = guard.Admit();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(Reason(status), "STORE_REFUSES_WRITES");
  EXPECT_TRUE(absl::StrContains(status.message(), "the disk is full"));
  EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  guard.SetWrites(absl::OkStatus());
  EXPECT_TRUE(guard.Admit().ok());
}

}  // namespace
}  // namespace epo
