#include "core/evaluate/layout.h"

#include <algorithm>
#include <numeric>

namespace epo {

Layout LayOut(const ModelConfig& config, std::span<const Candidate> candidates) {
  Layout layout;
  const auto add_row = [&](size_t c, size_t token) {
    layout.ids.push_back(candidates[c].tokens[token]);
    layout.positions.push_back(candidates[c].first_changed + static_cast<int64_t>(token));
    layout.candidate.push_back(static_cast<int64_t>(c));
    return static_cast<int64_t>(layout.ids.size()) - 1;
  };
  for (size_t c = 0; c < candidates.size(); ++c) {
    const std::vector<TokenId>& tokens = candidates[c].tokens;
    layout.first_row.push_back(static_cast<int64_t>(layout.ids.size()));
    for (size_t j = 0; j + 1 < tokens.size(); ++j) {
      add_row(c, j);
      layout.labels.push_back(tokens[j + 1]);
    }
  }
  layout.predicting = static_cast<int64_t>(layout.ids.size());

  const auto depth = [&](size_t c) { return candidates[c].parent->objective().layer; };
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return depth(a) > depth(b); });
  layout.last_row.resize(candidates.size());
  for (const size_t c : order) layout.last_row[c] = add_row(c, candidates[c].tokens.size() - 1);

  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const auto needed = std::partition_point(order.begin(), order.end(),
                                             [&](size_t c) { return depth(c) >= layer; });
    layout.rows_at.push_back(layout.predicting + (needed - order.begin()));
  }
  return layout;
}

}  // namespace epo
