// Frontiers of stored jobs, of one or of several together.
#ifndef EPO_SERVER_FRONTIERS_H_
#define EPO_SERVER_FRONTIERS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/search/frontier.h"
#include "epo/v1/frontier.pb.h"
#include "epo/v1/sweep.pb.h"
#include "server/convert.h"
#include "server/store.h"

namespace epo {

// INVALID_ARGUMENT for what is no kind of frontier.
absl::Status CheckFrontierKind(v1::FrontierKind kind);

// The penalty-frontier of the job's history so far; empty before its first step.
absl::StatusOr<v1::Frontier> PenaltyFrontierOf(const Store& store, const v1::Job& job);

// Adds the prompts of the job's history so far to `pareto`.
absl::Status AddHistory(const Store& store, const v1::Job& job, ParetoSet& pareto);

// Makes one frontier of the histories of several jobs. Not thread-safe.
class FrontierMerger {
 public:
  // The frontier's kind must be good: see CheckFrontierKind().
  explicit FrontierMerger(v1::FrontierKind kind) : kind_(kind) {}

  // Of equal prompts the first job's counts. After an error the merger is of no more use.
  absl::Status Add(const Store& store, const v1::Job& job);

  // The points and where they came from, and how many jobs had ended; the objective is left for the
  // caller to fill.
  v1::ObjectiveFrontier Finish(const Converter& converter) const;

 private:
  void Add(const std::vector<ScoredPrompt>& points);

  const v1::FrontierKind kind_;
  PenaltyFrontier penalties_;
  ParetoSet pareto_;
  struct Source {
    std::string job;
    uint64_t seed;
  };
  std::vector<Source> sources_;
  // Who found a prompt, with which score: where the device's sums differ from batch to batch, one
  // prompt may have several.
  absl::flat_hash_map<Prompt, std::vector<std::pair<Score, int>>> found_;
  int ended_ = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_FRONTIERS_H_
