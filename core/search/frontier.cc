#include "core/search/frontier.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace epo {
namespace {

// numpy.linspace(0, 50, 1000)[1:] has 999 values.
constexpr int kLinspaceSteps = 999;
constexpr double kLinspaceEnd = 50.0;

bool Usable(const Score& score) {
  return !std::isnan(score.target) && !std::isnan(score.cross_entropy);
}

double Loss(double penalty, const Score& score) {
  return -static_cast<double>(score.target) + penalty * static_cast<double>(score.cross_entropy);
}

bool LessFluentLast(const ScoredPrompt& a, const ScoredPrompt& b) {
  if (a.score.cross_entropy != b.score.cross_entropy) {
    return a.score.cross_entropy < b.score.cross_entropy;
  }
  return a.score.target < b.score.target;
}

}  // namespace

PenaltyFrontier::PenaltyFrontier() {
  for (int i = 1; i <= kLinspaceSteps; ++i) {
    penalties_.push_back(1.0 / (i * (kLinspaceEnd / kLinspaceSteps)));
  }
  entries_.assign(penalties_.size(), {std::numeric_limits<double>::infinity(), nullptr});
}

void PenaltyFrontier::Add(const Prompt& ids, Score score) {
  if (!Usable(score)) return;
  std::shared_ptr<const ScoredPrompt> point;
  for (size_t i = 0; i < penalties_.size(); ++i) {
    const double loss = Loss(penalties_[i], score);
    if (!(loss < entries_[i].loss)) continue;
    if (point == nullptr) point = std::make_shared<const ScoredPrompt>(ScoredPrompt{ids, score});
    entries_[i] = {loss, point};
  }
}

std::vector<ScoredPrompt> PenaltyFrontier::Points() const {
  std::vector<ScoredPrompt> points;
  for (const Entry& entry : entries_) {
    // A prompt that was scored twice, as a child and as a parent, is one point.
    if (entry.best != nullptr &&
        std::none_of(points.begin(), points.end(),
                     [&](const ScoredPrompt& point) { return point.ids == entry.best->ids; })) {
      points.push_back(*entry.best);
    }
  }
  std::sort(points.begin(), points.end(), LessFluentLast);
  return points;
}

PenaltyFrontier::Snapshot PenaltyFrontier::Save() const {
  Snapshot snapshot;
  std::map<const ScoredPrompt*, int> index;
  for (const Entry& entry : entries_) {
    if (entry.best == nullptr) {
      snapshot.by_penalty.push_back(-1);
      continue;
    }
    const auto [found, is_new] =
        index.try_emplace(entry.best.get(), static_cast<int>(snapshot.chosen.size()));
    if (is_new) snapshot.chosen.push_back(*entry.best);
    snapshot.by_penalty.push_back(found->second);
  }
  return snapshot;
}

bool PenaltyFrontier::Restore(const Snapshot& snapshot) {
  if (snapshot.by_penalty.size() != entries_.size()) return false;
  std::vector<std::shared_ptr<const ScoredPrompt>> chosen;
  for (const ScoredPrompt& point : snapshot.chosen) {
    if (!Usable(point.score)) return false;
    chosen.push_back(std::make_shared<const ScoredPrompt>(point));
  }
  std::vector<Entry> entries;
  for (size_t i = 0; i < snapshot.by_penalty.size(); ++i) {
    const int index = snapshot.by_penalty[i];
    if (index < -1 || index >= static_cast<int>(chosen.size())) return false;
    if (index < 0) {
      entries.push_back({std::numeric_limits<double>::infinity(), nullptr});
      continue;
    }
    const double loss = Loss(penalties_[i], chosen[index]->score);
    // Add() chooses by less-than, which such a loss never is; nor would another be less than it.
    if (std::isnan(loss)) return false;
    entries.push_back({loss, chosen[index]});
  }
  entries_ = std::move(entries);
  return true;
}

bool ParetoSet::Add(const Prompt& ids, Score score) {
  if (!Usable(score)) return false;
  const auto dominates = [](const Score& a, const Score& b) {
    return a.target >= b.target && a.cross_entropy <= b.cross_entropy;
  };
  for (const ScoredPrompt& point : points_) {
    if (!dominates(point.score, score)) continue;
    // Of equals only another prompt stands beside the first.
    if (!(point.score == score) || point.ids == ids) return false;
  }
  std::erase_if(points_, [&](const ScoredPrompt& point) {
    return point.ids == ids || (dominates(score, point.score) && !(point.score == score));
  });
  ScoredPrompt added{ids, score};
  points_.insert(std::upper_bound(points_.begin(), points_.end(), added, LessFluentLast),
                 std::move(added));
  return true;
}

}  // namespace epo
