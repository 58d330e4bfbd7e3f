#include "core/evaluate/score.h"

#include <limits>

#include "core/evaluate/flops.h"
#include "core/evaluate/layout.h"

namespace epo {
namespace {

// The surprisal of the positions before the change, which a candidate has from its parent.
double InheritedSurprisal(const Candidate& candidate) {
  const auto* parent = static_cast<const PreparedPrompt*>(candidate.parent);
  double total = 0;
  for (int i = 1; i < candidate.first_changed; ++i) total += parent->surprisal[i - 1];
  return total;
}

}  // namespace

std::vector<Score> ScorePass(const ModelConfig& config, PackedPass& pass,
                             std::span<const Candidate> candidates, EvaluatorCounters& counters) {
  const Layout layout = LayOut(config, candidates);
  const PassResult result = pass.Run(candidates, layout, counters);

  std::vector<double> totals;
  for (size_t c = 0; c < candidates.size(); ++c) {
    totals.push_back(InheritedSurprisal(candidates[c]) + result.change_surprisal[c]);
  }
  for (int64_t row = 0; row < layout.predicting; ++row) {
    totals[layout.candidate[row]] += result.surprisal[row];
  }
  std::vector<Score> scores(candidates.size());
  for (size_t c = 0; c < candidates.size(); ++c) {
    const auto length =
        candidates[c].first_changed + static_cast<int64_t>(candidates[c].tokens.size());
    scores[c].target = static_cast<float>(result.targets[c]);
    scores[c].cross_entropy =
        static_cast<float>(length > 1 ? totals[c] / static_cast<double>(length - 1)
                                      : std::numeric_limits<double>::quiet_NaN());
    counters.exhaustive_rows += length;
  }
  counters.candidates += static_cast<int64_t>(candidates.size());
  counters.rows += static_cast<int64_t>(layout.ids.size());
  counters.head_rows += layout.predicting;
  for (const int64_t rows : layout.rows_at) counters.matmul_flops += rows * LayerFlops(config);
  counters.matmul_flops += layout.predicting * HeadFlops(config);
  return scores;
}

}  // namespace epo
