#include "server/rate_limit.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace epo {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

TEST(TokenBucketTest, GivesItsCapacityAtOnceAndThenItsRate) {
  TokenBucket bucket(/*per_second=*/2, /*capacity=*/3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bucket.Take(kStart), absl::ZeroDuration());
  EXPECT_EQ(bucket.Take(kStart), absl::Milliseconds(500));
  // Asking costs nothing.
  EXPECT_EQ(bucket.Take(kStart), absl::Milliseconds(500));
  EXPECT_EQ(bucket.Take(kStart + absl::Milliseconds(500)), absl::ZeroDuration());
  EXPECT_GT(bucket.Take(kStart + absl::Milliseconds(500)), absl::ZeroDuration());
}

TEST(TokenBucketTest, HoldsNoMoreThanItsCapacity) {
  TokenBucket bucket(2, 3);
  EXPECT_TRUE(bucket.Full(kStart));
  const absl::Time later = kStart + absl::Hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bucket.Take(later), absl::ZeroDuration());
  EXPECT_GT(bucket.Take(later), absl::ZeroDuration());
  EXPECT_FALSE(bucket.Full(later + absl::Seconds(1)));
  EXPECT_TRUE(bucket.Full(later + absl::Seconds(2)));
}

TEST(TokenBucketTest, AClockThatGoesBackGivesNothingAway) {
  TokenBucket bucket(1, 1);
  EXPECT_EQ(bucket.Take(kStart), absl::ZeroDuration());
  EXPECT_GT(bucket.Take(kStart - absl::Hours(1)), absl::ZeroDuration());
  EXPECT_GT(bucket.Take(kStart + absl::Milliseconds(999)), absl::ZeroDuration());
  EXPECT_EQ(bucket.Take(kStart + absl::Seconds(1)), absl::ZeroDuration());
}

TEST(RateLimiterTest, NamesDoNotShareABucket) {
  RateLimiter limiter(1, 1);
  EXPECT_EQ(limiter.Take("alice", kStart), absl::ZeroDuration());
  EXPECT_EQ(limiter.Take("alice", kStart), absl::Seconds(1));
  EXPECT_EQ(limiter.Take("bob", kStart), absl::ZeroDuration());
}

TEST(RateLimiterTest, ForgetsNamesThatAreQuiet) {
  RateLimiter limiter(1, 1);
  limiter.Take("busy", kStart);
  for (int i = 0; i < 100'000; ++i) {
    const absl::Time now = kStart + absl::Milliseconds(i);
    limiter.Take(absl::StrCat("peer", i), now);
    limiter.Take("busy", now);
  }
  EXPECT_LT(limiter.size(), 5000);
  EXPECT_GT(limiter.Take("busy", kStart + absl::Milliseconds(99'999)), absl::ZeroDuration());
}

}  // namespace
}  // namespace epo
