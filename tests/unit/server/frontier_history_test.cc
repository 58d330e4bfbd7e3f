#include "server/frontier_history.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>
#include <vector>

#include "server/convert.h"

namespace epo {
namespace {

// Scores from few values, so that equals and repeated prompts are common, and NaN now and then.
Iteration RandomIteration(int index, std::mt19937& random) {
  constexpr int kSlots = 4;
  constexpr int kPool = 40;
  Iteration whole{.index = index};
  for (int i = 0; i < kPool; ++i) {
    const auto token = static_cast<TokenId>(random() % 200);
    whole.ids.push_back({token, 1, 2});
    // A prompt has one score.
    const bool nan = token % 50 == 49;
    whole.scores.push_back(
        {.target = nan ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(token % 7),
         .cross_entropy = static_cast<float>(token * 31 % 11)});
  }
  for (int i = 0; i < kSlots; ++i) whole.keep.push_back(static_cast<int>(random() % kPool));
  return whole;
}

void AddAll(const std::vector<ScoredPrompt>& members, ParetoSet& set) {
  for (const ScoredPrompt& member : members) set.Add(member.ids, member.score);
}

void ExpectSame(const ParetoSet& actual, const ParetoSet& expected) {
  ASSERT_EQ(actual.Points().size(), expected.Points().size());
  for (size_t i = 0; i < actual.Points().size(); ++i) {
    EXPECT_EQ(actual.Points()[i].ids, expected.Points()[i].ids) << i;
    EXPECT_EQ(actual.Points()[i].score, expected.Points()[i].score) << i;
  }
}

TEST(FrontierHistoryTest, TheFrontierOfWhatIsKeptIsThatOfTheWhole) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    FrontierHistory history;
    ParetoSet expected;
    ParetoSet got;
    int kept = 0;
    for (int index = 0; index < 30; ++index) {
      // The server was restarted here.
      if (index == 11) history = FrontierHistory();
      const Iteration whole = RandomIteration(index, random);
      const v1::Iteration reduced = Converter::ToIteration(history.Reduce(whole));
      AddAll(Converter::FromIteration(Converter::ToIteration(whole)), expected);
      AddAll(FrontierMembers(reduced), got);
      kept += reduced.ids_size();
      // After each, since a frontier can be asked for at any time.
      ExpectSame(got, expected);
    }
    EXPECT_LT(kept, 30 * 40 / 4);
  }
}

TEST(FrontierHistoryTest, ShowsTheSurvivorsInTheOrderOfSlots) {
  std::mt19937 random(1);
  FrontierHistory history;
  const Iteration whole = RandomIteration(3, random);
  v1::Iteration shown = Converter::ToIteration(history.Reduce(whole));
  LeaveSurvivors(shown);
  EXPECT_EQ(shown.index(), 3);
  ASSERT_EQ(shown.ids_size(), 4);
  ASSERT_EQ(shown.target_size(), 4);
  ASSERT_EQ(shown.cross_entropy_size(), 4);
  ASSERT_EQ(shown.keep_size(), 4);
  const v1::Iteration expected = Converter::ToIteration(whole);
  for (int slot = 0; slot < 4; ++slot) {
    const int member = whole.keep[slot];
    EXPECT_EQ(shown.keep(slot), slot);
    EXPECT_EQ(shown.ids(slot).SerializeAsString(), expected.ids(member).SerializeAsString());
    EXPECT_EQ(shown.cross_entropy(slot), expected.cross_entropy(member));
  }
}

}  // namespace
}  // namespace epo
