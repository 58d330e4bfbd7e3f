#include "server/row_budget.h"

#include <gtest/gtest.h>

namespace epo {
namespace {

TEST(RowBudgetTest, HalvesWhatDidNotFitAndGrowsBackSlowly) {
  RowBudget budget(8192);
  EXPECT_EQ(budget.rows(), 8192);
  EXPECT_TRUE(budget.Halve(8000));
  EXPECT_EQ(budget.rows(), 4000);
  EXPECT_TRUE(budget.Halve(8000));
  EXPECT_EQ(budget.rows(), 2000);
  // A round that was small anyway.
  EXPECT_TRUE(budget.Halve(600));
  EXPECT_EQ(budget.rows(), 300);
  int rounds = 0;
  for (; budget.rows() < 600; ++rounds) budget.Grow();
  EXPECT_NEAR(rounds, 45, 10);
  for (int i = 0; i < 1000; ++i) budget.Grow();
  EXPECT_EQ(budget.rows(), 8192);
}

TEST(RowBudgetTest, HasALeast) {
  RowBudget budget(8192);
  while (budget.Halve(budget.rows())) {
  }
  EXPECT_TRUE(budget.least());
  EXPECT_EQ(budget.rows(), RowBudget::kLeast);
  budget.Grow();
  EXPECT_FALSE(budget.least());
}

TEST(RowBudgetTest, ALeastAboveTheMostIsNone) {
  RowBudget budget(10);
  EXPECT_TRUE(budget.least());
  EXPECT_FALSE(budget.Halve(10));
  EXPECT_EQ(budget.rows(), 10);
}

}  // namespace
}  // namespace epo
