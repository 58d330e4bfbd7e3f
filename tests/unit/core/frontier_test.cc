#include "core/search/frontier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace epo {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Scores on a coarse grid, so that ties and repeated prompts are common.
std::vector<ScoredPrompt> RandomHistory(uint32_t seed, int count, int grid) {
  std::mt19937 random(seed);
  std::vector<ScoredPrompt> history;
  for (int i = 0; i < count; ++i) {
    // Better prompts lie near a curve: many of them end on the frontier.
    const float x = static_cast<float>(random() % grid) / static_cast<float>(grid) * 12;
    const float f = std::sqrt(x) - static_cast<float>(random() % 3);
    history.push_back({{static_cast<TokenId>(i), static_cast<TokenId>(seed)}, {f, x}});
    if (random() % 4 == 0) history.push_back(history[random() % history.size()]);
  }
  return history;
}

std::vector<std::pair<Prompt, Score>> Sorted(const std::vector<ScoredPrompt>& points) {
  std::vector<std::pair<Prompt, Score>> sorted;
  for (const ScoredPrompt& point : points) sorted.emplace_back(point.ids, point.score);
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return sorted;
}

void ExpectSortedByCrossEntropy(const std::vector<ScoredPrompt>& points) {
  for (size_t i = 1; i < points.size(); ++i) {
    EXPECT_LE(points[i - 1].score.cross_entropy, points[i].score.cross_entropy);
  }
}

// As the reference implementation computes it, over the whole history at the end.
std::vector<ScoredPrompt> BruteForcePenaltyFrontier(const std::vector<ScoredPrompt>& history) {
  std::set<size_t> chosen;
  for (int i = 1; i < 1000; ++i) {
    const double penalty = 1.0 / (50.0 / 999.0 * i);
    size_t best = history.size();
    double least = 0;
    for (size_t h = 0; h < history.size(); ++h) {
      const Score& score = history[h].score;
      const double loss = -static_cast<double>(score.target) + penalty * score.cross_entropy;
      if (best == history.size() || loss < least) std::tie(best, least) = std::pair(h, loss);
    }
    chosen.insert(best);
  }
  std::vector<ScoredPrompt> points;
  std::set<Prompt> seen;
  for (const size_t h : chosen) {
    if (seen.insert(history[h].ids).second) points.push_back(history[h]);
  }
  return points;
}

TEST(PenaltyFrontierTest, EqualsBruteForce) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const auto history = RandomHistory(seed, 400, seed % 2 == 0 ? 20 : 100'000);
    PenaltyFrontier frontier;
    for (const ScoredPrompt& one : history) frontier.Add(one.ids, one.score);
    const auto points = frontier.Points();
    EXPECT_GT(points.size(), 3U);
    EXPECT_EQ(Sorted(points), Sorted(BruteForcePenaltyFrontier(history))) << seed;
    ExpectSortedByCrossEntropy(points);
  }
}

TEST(PenaltyFrontierTest, KeepsTheFirstOfEquals) {
  PenaltyFrontier frontier;
  frontier.Add({1}, {2.0F, 3.0F});
  frontier.Add({2}, {2.0F, 3.0F});
  ASSERT_EQ(frontier.Points().size(), 1U);
  EXPECT_EQ(frontier.Points()[0].ids, Prompt({1}));
}

TEST(PenaltyFrontierTest, NeverTakesNaN) {
  PenaltyFrontier frontier;
  frontier.Add({1}, {kNaN, 1.0F});
  frontier.Add({2}, {1.0F, kNaN});
  EXPECT_TRUE(frontier.Points().empty());
  frontier.Add({3}, {-100.0F, 100.0F});
  ASSERT_EQ(frontier.Points().size(), 1U);
  EXPECT_EQ(frontier.Points()[0].ids, Prompt({3}));
}

TEST(PenaltyFrontierTest, ContinuesFromSnapshot) {
  const auto history = RandomHistory(5, 300, 50);
  PenaltyFrontier whole;
  for (const ScoredPrompt& one : history) whole.Add(one.ids, one.score);
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{77}, history.size()}) {
    PenaltyFrontier before;
    for (size_t i = 0; i < cut; ++i) before.Add(history[i].ids, history[i].score);
    PenaltyFrontier after;
    after.Add({9, 9, 9}, {1000.0F, 0.0F});  // Forgotten by Restore().
    ASSERT_TRUE(after.Restore(before.Save()));
    for (size_t i = cut; i < history.size(); ++i) after.Add(history[i].ids, history[i].score);
    EXPECT_EQ(Sorted(after.Points()), Sorted(whole.Points())) << cut;
    EXPECT_EQ(after.Save().by_penalty, whole.Save().by_penalty) << cut;
  }
}

TEST(PenaltyFrontierTest, RefusesForeignSnapshots) {
  PenaltyFrontier frontier;
  frontier.Add({1}, {1.0F, 1.0F});
  frontier.Add({2}, {3.0F, 3.0F});
  const PenaltyFrontier::Snapshot good = frontier.Save();
  std::vector<PenaltyFrontier::Snapshot> bad(6, good);
  bad[0].by_penalty.pop_back();
  bad[1].by_penalty[500] = static_cast<int>(good.chosen.size());
  bad[2].by_penalty[0] = -2;
  bad[3].chosen.clear();
  bad[4].chosen[0].score.target = std::numeric_limits<float>::quiet_NaN();
  // Whose loss is NaN.
  bad[5].chosen[0].score.target = bad[5].chosen[0].score.cross_entropy =
      std::numeric_limits<float>::infinity();
  for (const auto& snapshot : bad) {
    EXPECT_FALSE(frontier.Restore(snapshot));
    EXPECT_EQ(frontier.Save().by_penalty, good.by_penalty);
  }
  EXPECT_TRUE(frontier.Restore(good));
}

TEST(ParetoSetTest, EqualsBruteForce) {
  for (uint32_t seed = 0; seed < 10; ++seed) {
    const auto history = RandomHistory(seed, 300, seed % 2 == 0 ? 15 : 100'000);
    ParetoSet set;
    for (const ScoredPrompt& one : history) set.Add(one.ids, one.score);
    std::vector<ScoredPrompt> expected;
    std::set<Prompt> seen;
    for (const ScoredPrompt& one : history) {
      const bool dominated = std::any_of(history.begin(), history.end(), [&](const auto& other) {
        return other.score.target >= one.score.target &&
               other.score.cross_entropy <= one.score.cross_entropy && !(other.score == one.score);
      });
      if (!dominated && seen.insert(one.ids).second) expected.push_back(one);
    }
    EXPECT_GT(expected.size(), 3U);
    EXPECT_EQ(Sorted(set.Points()), Sorted(expected)) << seed;
    ExpectSortedByCrossEntropy(set.Points());
  }
}

TEST(ParetoSetTest, NeverTakesNaN) {
  ParetoSet set;
  set.Add({1}, {kNaN, 1.0F});
  set.Add({2}, {1.0F, kNaN});
  EXPECT_TRUE(set.Points().empty());
}

}  // namespace
}  // namespace epo
