#include "server/fair_share.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace epo {
namespace {

// Jobs that always have a next step.
class FairShareTest : public testing::Test {
 protected:
  void Add(int cost, double weight = 1, const std::string& client = "") {
    shares_.push_back({.client = client, .weight = weight, .cost = cost});
    steps_.push_back(0);
    rows_.push_back(0);
    fair_.Join(shares_.back());
  }

  std::vector<size_t> Pick(int budget) {
    std::vector<const Share*> shares;
    for (const Share& share : shares_) shares.push_back(&share);
    return fair_.PickRound(shares, budget);
  }

  std::vector<size_t> Round(int budget) {
    const std::vector<size_t> picked = Pick(budget);
    for (const size_t i : picked) {
      fair_.Charge(shares_[i]);
      ++steps_[i];
      rows_[i] += shares_[i].cost;
    }
    return picked;
  }

  using Jobs = std::vector<size_t>;
  FairShare fair_;
  std::vector<Share> shares_;
  std::vector<int> steps_;
  std::vector<double> rows_;
};

TEST(PriorityWeightTest, TenMoreIsTwiceAsMuch) {
  EXPECT_EQ(PriorityWeight(50), 1);
  EXPECT_EQ(PriorityWeight(60), 2);
  EXPECT_EQ(PriorityWeight(40), 0.5);
  EXPECT_EQ(PriorityWeight(100), 32);
  EXPECT_EQ(PriorityWeight(0), 1.0 / 32);
}

TEST_F(FairShareTest, NothingToPickFrom) { EXPECT_TRUE(Pick(100).empty()); }

TEST_F(FairShareTest, TakesWhatFits) {
  for (int i = 0; i < 8; ++i) Add(30);
  EXPECT_EQ(Pick(100), (Jobs{0, 1, 2}));
  EXPECT_EQ(Pick(1000).size(), 8U);
}

TEST_F(FairShareTest, AJobLargerThanTheBudgetHasItsTurn) {
  Add(500);
  Add(500);
  EXPECT_EQ(Round(100), Jobs{0});
  EXPECT_EQ(Round(100), Jobs{1});
}

TEST_F(FairShareTest, TheOneThatHadLeastComesFirst) {
  for (int i = 0; i < 3; ++i) Add(100);
  shares_[0].virtual_time = 5;
  shares_[1].virtual_time = 3;
  shares_[2].virtual_time = 4;
  EXPECT_EQ(Pick(200), (Jobs{1, 2}));
}

TEST_F(FairShareTest, SmallJobsRideAlongWithABigOne) {
  Add(80);
  Add(80);
  Add(10);
  Add(10);
  for (int i = 0; i < 4; ++i) shares_[i].virtual_time = i;
  EXPECT_EQ(Pick(100), (Jobs{0, 2, 3}));
}

TEST_F(FairShareTest, EqualJobsAdvanceTogether) {
  for (int i = 0; i < 11; ++i) Add(264);
  for (int round = 0; round < 1000; ++round) {
    Round(640);
    for (const int count : steps_) ASSERT_LE(std::abs(count - steps_[0]), 1);
  }
}

TEST_F(FairShareTest, EqualJobsFillARound) {
  for (int i = 0; i < 11; ++i) Add(264);
  for (int round = 0; round < 10; ++round) EXPECT_EQ(Round(1 << 20).size(), 11U);
}

TEST_F(FairShareTest, RowsFollowTheWeightsHoweverLargeTheRound) {
  for (const int budget : {1, 1000, 1 << 20}) {
    shares_.clear();
    steps_.clear();
    rows_.clear();
    fair_ = FairShare();
    Add(264, 1);
    Add(264, 4);
    Add(1056, 1);
    for (int round = 0; round < 3000; ++round) Round(budget);
    EXPECT_NEAR(rows_[1] / rows_[0], 4, 0.05) << budget;
    EXPECT_NEAR(rows_[2] / rows_[0], 1, 0.05) << budget;
  }
}

TEST_F(FairShareTest, ClientsHaveEqualSharesWhateverTheirJobs) {
  for (const int budget : {1, 1000, 1 << 20}) {
    shares_.clear();
    steps_.clear();
    rows_.clear();
    fair_ = FairShare();
    Add(264, 1, "alice");
    for (int i = 0; i < 10; ++i) Add(264, i == 0 ? 4 : 1, "bob");
    for (int round = 0; round < 5000; ++round) Round(budget);
    double of_bob = 0;
    for (size_t i = 1; i < rows_.size(); ++i) of_bob += rows_[i];
    EXPECT_NEAR(of_bob / rows_[0], 1, 0.01) << budget;
    // And bob's own by their weights.
    EXPECT_NEAR(rows_[1] / rows_[2], 4, 0.1) << budget;
    EXPECT_NEAR(rows_[2] / rows_[10], 1, 0.05) << budget;
  }
}

TEST_F(FairShareTest, AClientThatWasAwayTakesNoMoreThanItsShare) {
  Add(100, 1, "alice");
  Add(100, 1, "bob");
  Round(1000);
  // Only bob has something to do for a while.
  std::vector<const Share*> only_bob = {&shares_[1]};
  for (int i = 0; i < 50; ++i) {
    fair_.PickRound(only_bob, 1000);
    fair_.Charge(shares_[1]);
  }
  fair_.Join(shares_[0]);
  const std::vector<int> before = steps_;
  for (int i = 0; i < 20; ++i) Round(100);
  EXPECT_NEAR(steps_[0] - before[0], 10, 1);
  EXPECT_NEAR(steps_[1] - before[1], 10, 1);
}

TEST_F(FairShareTest, ANewJobNeitherWaitsNorBlocks) {
  Add(100);
  Add(100);
  for (int round = 0; round < 50; ++round) Round(100);
  Add(100);
  const std::vector<int> before = steps_;
  for (int round = 0; round < 30; ++round) Round(100);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(steps_[i] - before[i], 10, 1) << i;
}

}  // namespace
}  // namespace epo
