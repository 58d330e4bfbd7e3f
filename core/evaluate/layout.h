// Where the rows of a packed pass stand.
#ifndef EPO_CORE_EVALUATE_LAYOUT_H_
#define EPO_CORE_EVALUATE_LAYOUT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/model/model_config.h"

namespace epo {

// One pass's rows, a row for each token from a candidate's first changed one on. Rows that predict
// a token come first, candidate by candidate; then each candidate's last row, which only its target
// needs, the deepest target first. So the rows that a layer still needs are a prefix, and the
// head's are another.
struct Layout {
  // Of each row: its token, its position in its prompt, its candidate.
  std::vector<int64_t> ids;
  std::vector<int64_t> positions;
  std::vector<int64_t> candidate;
  // How many rows predict a token, and for each of these the token.
  int64_t predicting = 0;
  std::vector<int64_t> labels;
  // Of each candidate: its first predicting row (meaningful if it has several tokens), and its last
  // row.
  std::vector<int64_t> first_row;
  std::vector<int64_t> last_row;
  // At [i]: how many rows layer i computes.
  std::vector<int64_t> rows_at;
};

// The least multiple of `multiple` that is not below `size`.
inline int64_t RoundUp(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

Layout LayOut(const ModelConfig& config, std::span<const Candidate> candidates);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_LAYOUT_H_
