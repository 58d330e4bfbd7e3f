#include "server/fair_share.h"

#include <gtest/gtest.h>

#include <vector>

namespace epo {
namespace {

std::vector<Share> Equal(int jobs, int cost) {
  return std::vector<Share>(jobs, Share{.virtual_time = 0, .weight = 1, .cost = cost});
}

TEST(FairShare, NothingToPickFrom) { EXPECT_TRUE(PickRound({}, 100).empty()); }

TEST(FairShare, TakesWhatFits) {
  const auto shares = Equal(8, 30);
  EXPECT_EQ(PickRound(shares, 100), (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(PickRound(shares, 1000).size(), 8u);
}

TEST(FairShare, AJobLargerThanTheBudgetHasItsTurn) {
  const auto shares = Equal(2, 500);
  EXPECT_EQ(PickRound(shares, 100), (std::vector<size_t>{0}));
}

TEST(FairShare, TheOneThatHadLeastComesFirst) {
  std::vector<Share> shares = Equal(3, 100);
  shares[0].virtual_time = 5;
  shares[1].virtual_time = 3;
  shares[2].virtual_time = 4;
  EXPECT_EQ(PickRound(shares, 200), (std::vector<size_t>{1, 2}));
}

TEST(FairShare, SmallJobsRideAlongWithABigOne) {
  std::vector<Share> shares = Equal(4, 10);
  shares[0] = {.virtual_time = 0, .weight = 1, .cost = 80};
  shares[1] = {.virtual_time = 1, .weight = 1, .cost = 80};
  shares[2].virtual_time = 2;
  shares[3].virtual_time = 3;
  EXPECT_EQ(PickRound(shares, 100), (std::vector<size_t>{0, 2, 3}));
}

TEST(FairShare, EqualJobsAdvanceTogether) {
  std::vector<Share> shares = Equal(11, 264);
  std::vector<int> steps(shares.size());
  for (int round = 0; round < 1000; ++round) {
    for (size_t i : PickRound(shares, 640)) {
      shares[i].Charge();
      ++steps[i];
    }
    for (int count : steps) ASSERT_LE(std::abs(count - steps[0]), 1);
  }
}

TEST(FairShare, EvaluationsFollowTheWeights) {
  std::vector<Share> shares = {{.virtual_time = 0, .weight = 1, .cost = 264},
                               {.virtual_time = 0, .weight = 3, .cost = 264},
                               {.virtual_time = 0, .weight = 1, .cost = 1056}};
  std::vector<int64_t> evaluations(3);
  for (int round = 0; round < 3000; ++round) {
    // Just the first: riding along is a gift that is charged, too, but blurs the proportions of the
    // moment.
    const size_t i = PickRound(shares, 1)[0];
    shares[i].Charge();
    evaluations[i] += shares[i].cost;
  }
  EXPECT_NEAR(static_cast<double>(evaluations[1]) / evaluations[0], 3, 0.05);
  EXPECT_NEAR(static_cast<double>(evaluations[2]) / evaluations[0], 1, 0.05);
}

TEST(FairShare, ANewJobNeitherWaitsNorBlocks) {
  std::vector<Share> shares = Equal(2, 100);
  EXPECT_EQ(JoinTime({}), 0);
  for (int round = 0; round < 50; ++round) {
    for (size_t i : PickRound(shares, 100)) shares[i].Charge();
  }
  Share joined{.virtual_time = JoinTime(shares), .weight = 1, .cost = 100};
  EXPECT_EQ(joined.virtual_time, 2500);
  shares.push_back(joined);
  std::vector<int> steps(3);
  for (int round = 0; round < 30; ++round) {
    for (size_t i : PickRound(shares, 100)) {
      shares[i].Charge();
      ++steps[i];
    }
  }
  EXPECT_EQ(steps, (std::vector<int>{10, 10, 10}));
}

}  // namespace
}  // namespace epo
