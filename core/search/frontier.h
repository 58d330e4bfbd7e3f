// The Pareto frontier of a search's history: target against cross-entropy (the paper's section 3).
#ifndef EPO_CORE_SEARCH_FRONTIER_H_
#define EPO_CORE_SEARCH_FRONTIER_H_

#include <memory>
#include <vector>

#include "core/base/types.h"
#include "core/evaluate/evaluator.h"

namespace epo {

struct ScoredPrompt {
  Prompt ids;
  Score score;
};

// Both collect candidates in the order of the history and answer with distinct prompts sorted by
// cross-entropy. A candidate whose target or cross-entropy is NaN never enters. Not thread-safe.

// For each penalty of 1 / linspace(0, 50, 1000)[1:], the first candidate with the least -f +
// penalty * x, in float64 over the float32 scores: the frontier of the reference implementation's
// build_pareto_frontier.
class PenaltyFrontier {
 public:
  PenaltyFrontier();
  void Add(const Prompt& ids, Score score);
  std::vector<ScoredPrompt> Points() const;

  // The whole state: the candidates that some penalty chose, and for each penalty an index into
  // them, -1 where there is none yet.
  struct Snapshot {
    std::vector<ScoredPrompt> chosen;
    std::vector<int> by_penalty;
  };
  Snapshot Save() const;
  // False, and nothing changed, when `snapshot` is not a state of this class.
  bool Restore(const Snapshot& snapshot);

 private:
  struct Entry {
    double loss;
    std::shared_ptr<const ScoredPrompt> best;
  };
  std::vector<double> penalties_;
  std::vector<Entry> entries_;
};

// Every candidate that no other dominates (target at least as great and cross-entropy at least as
// small, one of them strictly).
class ParetoSet {
 public:
  // Whether the candidate is in the set now.
  bool Add(const Prompt& ids, Score score);
  // Sorted by cross-entropy.
  const std::vector<ScoredPrompt>& Points() const { return points_; }

 private:
  std::vector<ScoredPrompt> points_;
};

}  // namespace epo

#endif  // EPO_CORE_SEARCH_FRONTIER_H_
