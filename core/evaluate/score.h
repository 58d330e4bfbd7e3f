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

// Scores `candidates`, valid and few enough for one pass, by `pass`, and adds to `counters`. Throws
// c10::Error when the device fails.
std::vector<Score> ScorePass(const ModelConfig& config, PackedPass& pass,
                             std::span<const Candidate> candidates, EvaluatorCounters& counters);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_SCORE_H_
