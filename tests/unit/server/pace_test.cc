#include "server/pace.h"

#include <gtest/gtest.h>

namespace epo {
namespace {

TEST(RoundPaceTest, JudgesARoundByThoseOfItsSize) {
  RoundPace pace;
  EXPECT_FALSE(pace.SecondsOf(100).has_value());
  // Most of what a small round takes is not for its rows.
  for (int i = 0; i < 20; ++i) pace.Add(10, 0.05);
  EXPECT_DOUBLE_EQ(pace.SecondsOf(10).value(), 0.05);
  EXPECT_DOUBLE_EQ(pace.SecondsOf(20).value(), 0.1);
  EXPECT_FALSE(pace.SecondsOf(2000).has_value());
  pace.Add(2000, 0.2);
  EXPECT_DOUBLE_EQ(pace.SecondsOf(2000).value(), 0.2);
  EXPECT_DOUBLE_EQ(pace.SecondsOf(4000).value(), 0.4);
  EXPECT_DOUBLE_EQ(pace.SecondsOf(10).value(), 0.05);
  // Nothing between them is nearer than a factor of four.
  EXPECT_FALSE(pace.SecondsOf(150).has_value());
}

}  // namespace
}  // namespace epo
