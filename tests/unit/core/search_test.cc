#include "core/search/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/search/penalties.h"

namespace epo {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::Pointwise;
using ::testing::UnorderedElementsAre;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::shared_ptr<const AllowedTokens> Allow(const std::vector<TokenId>& ids, int rows) {
  auto allowed = std::make_shared<AllowedTokens>();
  allowed->ids = ids;
  allowed->mask.assign(rows, 0);
  for (const TokenId id : ids) allowed->mask[id] = 1;
  return allowed;
}

std::shared_ptr<const AllowedTokens> AllowAll(int rows) {
  std::vector<TokenId> ids(rows);
  for (int i = 0; i < rows; ++i) ids[i] = i;
  return Allow(ids, rows);
}

SearchOptions SmallOptions() {
  SearchOptions options;
  options.tokens = 5;
  options.population = 4;
  options.children_per_parent = 6;
  options.top_k = 20;
  options.iterations = 12;
  options.restart_period = 5;
  options.restart_penalty_low = 1.0;
  options.restart_penalty_high = 5.0;
  options.seed = 7;
  return options;
}

// A model in two lines: any deterministic function of the prompt serves the search.
Score ScoreOf(const Prompt& prompt) {
  uint32_t hash = 17;
  for (const TokenId id : prompt) hash = hash * 31 + static_cast<uint32_t>(id);
  return {static_cast<float>(hash % 1009) / 100.0F, static_cast<float>(hash % 757) / 100.0F};
}

using Scorer = std::function<Score(const Prompt&)>;

// Asks, makes each child by a rule of its rank, and tells.
Iteration Step(Search& search, const Scorer& score = ScoreOf) {
  const std::vector<Mutation> mutations = search.Ask();
  const std::vector<Prompt> parents(search.parents().begin(), search.parents().end());
  std::vector<Score> parent_scores, child_scores;
  std::vector<Prompt> children;
  for (const Prompt& parent : parents) parent_scores.push_back(score(parent));
  for (const Mutation& mutation : mutations) {
    Prompt child = parents[mutation.slot];
    child[mutation.position] = (child[mutation.position] + 1 + mutation.rank) % 50;
    child_scores.push_back(score(child));
    children.push_back(std::move(child));
  }
  return search.Tell(parent_scores, std::move(children), child_scores);
}

std::vector<Iteration> RunToEnd(Search& search) {
  std::vector<Iteration> iterations;
  while (!search.done()) iterations.push_back(Step(search));
  return iterations;
}

void ExpectEqual(const Iteration& a, const Iteration& b) {
  EXPECT_EQ(a.index, b.index);
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.scores, b.scores);
  EXPECT_EQ(a.keep, b.keep);
  EXPECT_EQ(a.restart_penalty, b.restart_penalty);
}

void ExpectEqual(const std::vector<ScoredPrompt>& a, const std::vector<ScoredPrompt>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].ids, b[i].ids);
    EXPECT_EQ(a[i].score, b[i].score);
  }
}

// The numbers are torch's: manual_seed(7), randint(0, 500, (2, 5)), then in each iteration
// randint(0, 5, (6,)), randint(0, 3, (6,)) and at a restart 1 + 4 * rand(1).
TEST(SearchTest, DrawsAsTorchDoes) {
  SearchOptions options = SmallOptions();
  options.population = 2;
  options.children_per_parent = 3;
  options.top_k = 3;
  options.restart_period = 1;
  const auto search = *Search::Create(options, AllowAll(500));
  EXPECT_THAT(search->parents(),
              ElementsAre(Prompt({115, 392, 221, 286, 283}), Prompt({347, 287, 279, 488, 261})));
  const std::vector<std::vector<int>> positions = {{3, 1, 3, 2, 2, 0}, {1, 3, 3, 3, 2, 0}};
  const std::vector<std::vector<int>> ranks = {{0, 1, 0, 0, 0, 1}, {2, 0, 1, 0, 1, 1}};
  const std::vector<float> restart_penalties = {4.02877784F, 4.83686638F};
  for (int i = 0; i < 2; ++i) {
    const std::string saved = search->Save();
    std::vector<int> slot, position, rank;
    for (const Mutation& mutation : search->Ask()) {
      slot.push_back(mutation.slot);
      position.push_back(mutation.position);
      rank.push_back(mutation.rank);
    }
    EXPECT_THAT(slot, ElementsAre(0, 1, 0, 1, 0, 1));
    EXPECT_EQ(position, positions[i]);
    EXPECT_EQ(rank, ranks[i]);
    const Iteration iteration = search->Tell(
        std::vector<Score>(2), std::vector<Prompt>(6, Prompt(5, 1)), std::vector<Score>(6));
    EXPECT_EQ(iteration.restart_penalty, restart_penalties[i]);
  }
}

TEST(SearchTest, SpacesPenaltiesAsTorchDoes) {
  EXPECT_THAT(LogSpacedPenalties(0.1, 10.0, 8),
              ElementsAre(0.099999994F, 0.193069771F, 0.372759342F, 0.719685614F, 1.38949561F,
                          2.68269587F, 5.17947483F, 10.0F));
  EXPECT_THAT(LogSpacedPenalties(0.1, 10.0, 1), ElementsAre(0.099999994F));
  const auto search = *Search::Create(SmallOptions(), AllowAll(50));
  EXPECT_THAT(search->penalties(), Pointwise(::testing::Eq(), LogSpacedPenalties(0.1, 10.0, 4)));
}

TEST(SearchTest, DrawsAllowedTokensOnly) {
  SearchOptions options = SmallOptions();
  options.population = 40;
  const auto search = *Search::Create(options, Allow({3, 8, 41}, 50));
  std::vector<int> seen(50, 0);
  for (const Prompt& parent : search->parents()) {
    for (const TokenId id : parent) ++seen[id];
  }
  for (int id = 0; id < 50; ++id) EXPECT_EQ(seen[id] > 0, id == 3 || id == 8 || id == 41) << id;
}

TEST(SearchTest, StartsFromGivenPrompts) {
  SearchOptions options = SmallOptions();
  options.initial_prompts = {Prompt({1, 2, 3, 4, 5})};
  EXPECT_THAT((*Search::Create(options, AllowAll(50)))->parents(), Each(Prompt({1, 2, 3, 4, 5})));
  options.initial_prompts = {Prompt(5, 1), Prompt(5, 2), Prompt(5, 3)};
  EXPECT_THAT((*Search::Create(options, AllowAll(50)))->parents(),
              ElementsAre(Prompt(5, 1), Prompt(5, 2), Prompt(5, 3), Prompt(5, 1)));
  options.initial_prompts = {Prompt(5, 1), Prompt(5, 2), Prompt(5, 3), Prompt(5, 4)};
  EXPECT_THAT((*Search::Create(options, AllowAll(50)))->parents(),
              ElementsAre(Prompt(5, 1), Prompt(5, 2), Prompt(5, 3), Prompt(5, 4)));
}

TEST(SearchTest, RunsEquallyFromEqualSeeds) {
  const auto allowed = AllowAll(50);
  const auto a = *Search::Create(SmallOptions(), allowed);
  const auto b = *Search::Create(SmallOptions(), allowed);
  const auto from_a = RunToEnd(*a), from_b = RunToEnd(*b);
  ASSERT_EQ(from_a.size(), 12U);
  ASSERT_EQ(from_b.size(), 12U);
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(from_a[i].index, i);
    EXPECT_EQ(from_a[i].ids.size(), 4U + 24U);
    ExpectEqual(from_a[i], from_b[i]);
  }
  EXPECT_EQ(a->Save(), b->Save());
  ExpectEqual(a->frontier(), b->frontier());

  SearchOptions other = SmallOptions();
  other.seed = 8;
  EXPECT_NE(RunToEnd(**Search::Create(other, allowed))[0].ids, from_a[0].ids);
}

TEST(SearchTest, NextParentsAreTheKeptOnes) {
  const auto search = *Search::Create(SmallOptions(), AllowAll(50));
  std::vector<Prompt> parents(search->parents().begin(), search->parents().end());
  for (int i = 0; i < 12; ++i) {
    EXPECT_FALSE(search->done());
    EXPECT_EQ(search->completed_iterations(), i);
    const Iteration iteration = Step(*search);
    for (int slot = 0; slot < 4; ++slot) {
      EXPECT_EQ(iteration.ids[slot], parents[slot]);
      EXPECT_EQ(search->parents()[slot], iteration.ids[iteration.keep[slot]]);
    }
    parents.assign(search->parents().begin(), search->parents().end());
  }
  EXPECT_TRUE(search->done());
}

int BestByHand(const Iteration& iteration, float penalty) {
  size_t best = 0;
  const auto loss = [&](size_t i) {
    // Rounded after each operation, as float32 tensors are.
    const volatile float product = penalty * iteration.scores[i].cross_entropy;
    return product - iteration.scores[i].target;
  };
  for (size_t i = 1; i < iteration.scores.size(); ++i) {
    if (loss(i) < loss(best)) best = i;
  }
  return static_cast<int>(best);
}

TEST(SearchTest, EachSlotKeepsTheBestForItsPenaltyExceptAtRestarts) {
  const auto search = *Search::Create(SmallOptions(), AllowAll(50));
  int diverse = 0;
  for (int i = 0; i < 12; ++i) {
    const Iteration iteration = Step(*search);
    EXPECT_EQ(iteration.restart_penalty.has_value(), i % 5 == 0) << i;
    if (iteration.restart_penalty) {
      EXPECT_GE(*iteration.restart_penalty, 1.0F);
      EXPECT_LE(*iteration.restart_penalty, 5.0F);
      EXPECT_THAT(iteration.keep, Each(BestByHand(iteration, *iteration.restart_penalty)));
      continue;
    }
    for (int slot = 0; slot < 4; ++slot) {
      EXPECT_EQ(iteration.keep[slot], BestByHand(iteration, search->penalties()[slot]));
      diverse += iteration.keep[slot] != iteration.keep[0];
    }
  }
  EXPECT_GT(diverse, 0) << "every slot kept the same: the penalties told nothing apart";
}

TEST(SearchTest, NeverRestartsWithoutPeriod) {
  SearchOptions options = SmallOptions();
  options.restart_period = 0;
  const auto search = *Search::Create(options, AllowAll(50));
  for (const Iteration& iteration : RunToEnd(*search)) EXPECT_FALSE(iteration.restart_penalty);
}

TEST(SearchTest, BreaksTiesToTheLowestIndex) {
  for (const int period : {0, 1}) {
    SearchOptions options = SmallOptions();
    options.restart_period = period;
    const auto search = *Search::Create(options, AllowAll(50));
    EXPECT_THAT(Step(*search, [](const Prompt&) { return Score{1.0F, 2.0F}; }).keep, Each(0));
  }
}

TEST(SearchTest, NaNNeverWins) {
  for (const int period : {0, 1}) {
    SearchOptions options = SmallOptions();
    options.restart_period = period;
    const auto search = *Search::Create(options, AllowAll(50));
    const auto is_good = [](const Prompt& prompt) { return prompt[0] % 3 == 0; };
    const auto score = [&](const Prompt& prompt) {
      if (is_good(prompt)) return Score{-50.0F, 90.0F};
      return prompt[1] % 2 == 0 ? Score{kNaN, 1.0F} : Score{1.0F, kNaN};
    };
    for (int i = 0; i < 3; ++i) {
      const Iteration iteration = Step(*search, score);
      for (const int kept : iteration.keep) EXPECT_TRUE(is_good(iteration.ids[kept]));
    }
    for (const ScoredPrompt& point : search->frontier()) EXPECT_TRUE(is_good(point.ids));
  }
}

TEST(SearchTest, SlotsKeepTheirParentsWhenAllIsNaN) {
  for (const int period : {0, 1}) {
    SearchOptions options = SmallOptions();
    options.restart_period = period;
    const auto search = *Search::Create(options, AllowAll(50));
    EXPECT_THAT(Step(*search,
                     [](const Prompt&) {
                       return Score{kNaN, kNaN};
                     })
                    .keep,
                ElementsAre(0, 1, 2, 3));
    EXPECT_TRUE(search->frontier().empty());
  }
}

TEST(SearchTest, DrawsOpenPositionsOnly) {
  SearchOptions options = SmallOptions();
  options.initial_prompts = {Prompt({1, 2, 3, 4, 5})};
  options.constraints.frozen_positions = {3, 0};
  const auto search = *Search::Create(options, AllowAll(50));
  std::vector<int> drawn(5, 0);
  for (int i = 0; i < 12; ++i) {
    for (const Mutation& mutation : search->Ask()) ++drawn[mutation.position];
    ++drawn[search->Redraw(1).position];
    EXPECT_THAT(search->DrawPositions(), UnorderedElementsAre(1, 2, 4));
  }
  EXPECT_THAT(drawn, ElementsAre(0, Gt(0), Gt(0), 0, Gt(0)));
}

TEST(SearchTest, KeepsNothingAboveTheCeilingOnceThereIsBetter) {
  for (const int period : {0, 1}) {
    SearchOptions options = SmallOptions();
    options.restart_period = period;
    options.constraints.max_cross_entropy = 2.0;
    const auto search = *Search::Create(options, AllowAll(50));
    // The less fluent, the greater the target: only the ceiling holds it back.
    const auto score_with_base = [](float base) {
      return [base](const Prompt& prompt) {
        const float cross_entropy = base + ScoreOf(prompt).cross_entropy / 10.0F;
        return prompt[0] == 1 ? Score{kNaN, 0.0F} : Score{100.0F * cross_entropy, cross_entropy};
      };
    };
    // All are above it: the least cross-entropy leads below.
    const Iteration above = Step(*search, score_with_base(3.0F));
    size_t least = above.scores.size();
    for (size_t i = 0; i < above.scores.size(); ++i) {
      if (std::isnan(above.scores[i].target)) continue;
      if (least == above.scores.size() ||
          above.scores[i].cross_entropy < above.scores[least].cross_entropy) {
        least = i;
      }
    }
    EXPECT_THAT(above.keep, Each(static_cast<int>(least)));
    EXPECT_TRUE(search->frontier().empty());
    int kept_from_more = 0;
    for (int i = 0; i < 5; ++i) {
      const Iteration iteration = Step(*search, score_with_base(1.7F));
      const auto good = std::count_if(iteration.scores.begin(), iteration.scores.end(),
                                      [](const Score& s) { return s.cross_entropy <= 2.0F; });
      ASSERT_GT(good, 0);
      kept_from_more += good < std::ssize(iteration.scores);
      for (const int kept : iteration.keep) EXPECT_LE(iteration.scores[kept].cross_entropy, 2.0F);
      EXPECT_FALSE(search->frontier().empty());
      for (const ScoredPrompt& point : search->frontier()) {
        EXPECT_LE(point.score.cross_entropy, 2.0F);
      }
    }
    EXPECT_GT(kept_from_more, 0) << "nothing was above the ceiling";
  }
}

TEST(SearchTest, ContinuesFromSaveBitForBit) {
  const auto allowed = AllowAll(50);
  const auto whole = *Search::Create(SmallOptions(), allowed);
  std::vector<std::string> saves = {whole->Save()};
  std::vector<Iteration> iterations;
  while (!whole->done()) {
    iterations.push_back(Step(*whole));
    saves.push_back(whole->Save());
  }
  for (size_t cut = 0; cut < saves.size(); ++cut) {
    const auto restored = Search::Restore(SmallOptions(), allowed, saves[cut]);
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_EQ((*restored)->Save(), saves[cut]);
    EXPECT_EQ((*restored)->completed_iterations(), static_cast<int>(cut));
    for (size_t i = cut; i < iterations.size(); ++i) {
      ExpectEqual(Step(**restored), iterations[i]);
      EXPECT_EQ((*restored)->Save(), saves[i + 1]);
    }
    EXPECT_TRUE((*restored)->done());
    ExpectEqual((*restored)->frontier(), whole->frontier());
  }
}

TEST(SearchTest, RefusesDamagedSaves) {
  const auto allowed = AllowAll(50);
  const auto search = *Search::Create(SmallOptions(), allowed);
  Step(*search);
  const std::string good = search->Save();
  const auto restore = [&](const std::string& blob) {
    return Search::Restore(SmallOptions(), allowed, blob).status().code();
  };
  ASSERT_EQ(restore(good), absl::StatusCode::kOk);
  for (size_t size = 0; size < good.size(); size += 1 + size / 64) {
    EXPECT_EQ(restore(good.substr(0, size)), absl::StatusCode::kInvalidArgument) << size;
  }
  for (size_t i = 0; i < good.size(); i += 7) {
    std::string flipped = good;
    flipped[i] ^= 1 << (i % 8);
    EXPECT_EQ(restore(flipped), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_EQ(restore(good + "x"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(restore(std::string(1'000'000, '\x81')), absl::StatusCode::kInvalidArgument);
}

TEST(SearchTest, RefusesSavesOfOtherOptions) {
  const auto allowed = AllowAll(50);
  const auto search = *Search::Create(SmallOptions(), allowed);
  Step(*search);
  const std::string blob = search->Save();
  const std::vector<std::function<void(SearchOptions&)>> changes = {
      [](auto& o) { o.tokens = 6; },
      [](auto& o) { o.population = 5; },
      [](auto& o) { o.children_per_parent = 7; },
      [](auto& o) { o.top_k = 19; },
      [](auto& o) { o.penalty_min = 0.2; },
      [](auto& o) { o.penalty_max = std::nextafter(10.0, 11.0); },
      [](auto& o) { o.iterations = 13; },
      [](auto& o) { o.restart_period = 4; },
      [](auto& o) { o.restart_penalty_low = 0.5; },
      [](auto& o) { o.restart_penalty_high = 6.0; },
      [](auto& o) { o.seed = 8; },
      [](auto& o) { o.initial_prompts = {Prompt(5, 1)}; },
      [](auto& o) { o.allow_special_tokens = true; },
      [](auto& o) { o.constraints.ascii_only = true; },
      [](auto& o) { o.constraints.decodable_only = true; },
      [](auto& o) { o.constraints.banned_ids = {49}; },
      [](auto& o) { o.constraints.banned_token_regex = "x"; },
      [](auto& o) { o.constraints.banned_texts = {"x"}; },
      [](auto& o) { o.constraints.retokenizable = true; },
      [](auto& o) { o.constraints.frozen_positions = {1}; },
      [](auto& o) { o.constraints.max_cross_entropy = 5; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    SearchOptions options = SmallOptions();
    changes[i](options);
    EXPECT_EQ(Search::Restore(options, allowed, blob).status().code(),
              absl::StatusCode::kInvalidArgument)
        << "case " << i;
  }
}

}  // namespace
}  // namespace epo
