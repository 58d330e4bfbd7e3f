#include "client/cli/time.h"

#include <gtest/gtest.h>

namespace epo::cli {
namespace {

TEST(TimeTest, DurationTextKeepsTwoUnits) {
  EXPECT_EQ(DurationText(absl::Seconds(-3)), "0s");
  EXPECT_EQ(DurationText(absl::Seconds(7.4)), "7s");
  EXPECT_EQ(DurationText(absl::Seconds(59.6)), "1m00s");
  EXPECT_EQ(DurationText(absl::Seconds(123)), "2m03s");
  EXPECT_EQ(DurationText(absl::Minutes(65)), "1h05m");
  EXPECT_EQ(DurationText(absl::Hours(76)), "3d04h");
}

TEST(TimeTest, Rfc3339) {
  google::protobuf::Timestamp time;
  time.set_seconds(1767323045);
  EXPECT_EQ(FormatRfc3339(time), "2026-01-02T03:04:05Z");
  time.set_nanos(1'000'000);
  EXPECT_EQ(FormatRfc3339(time), "2026-01-02T03:04:05.001Z");
}

}  // namespace
}  // namespace epo::cli
