// Scoring candidates packed: only what differs from the parent is computed, and only as deep as
// needed. Includes torch.
#ifndef EPO_CORE_EVALUATE_SCORE_H_
#define EPO_CORE_EVALUATE_SCORE_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/evaluate/evaluator.h"
#include "core/evaluate/packed_pass.h"
#include "core/evaluate/prepared_prompt.h"

namespace epo {

// OK, or INVALID_ARGUMENT with why `candidate`, whose parent was prepared with gradients and whose
// tokens are in the vocabulary, cannot be scored.
absl::Status CheckCandidate(const Candidate& candidate);

// Rows of the model that a valid `candidate` costs.
int64_t RowsOf(const Candidate& candidate);

// Valid candidates as a pass takes them: each one's branches, one after another.
struct Packed {
  struct Place {
    size_t first_item = 0;
    // One a branch; -1 where the first changed token is not counted.
    std::vector<int64_t> changes;
  };
  std::vector<PassItem> items;
  std::vector<Change> changes;
  // One a candidate.
  std::vector<Place> places;
  size_t numbers = 0;
};
// The candidates' parents must outlive the result.
Packed Pack(std::span<const Candidate> candidates);

// Scores `candidates`, valid and few enough for one pass, by `pass`, and adds to `counters`. Throws
// c10::Error when the device fails.
std::vector<Score> ScorePass(const ModelConfig& config, PackedPass& pass,
                             std::span<const Candidate> candidates, EvaluatorCounters& counters);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_SCORE_H_
