// Where the rows of a packed pass stand.
#ifndef EPO_CORE_EVALUATE_LAYOUT_H_
#define EPO_CORE_EVALUATE_LAYOUT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/plan.h"
#include "core/model/model_config.h"

namespace epo {

struct PreparedBranch;
class ModelTarget;

// A candidate in one branch of its plan. Borrows.
struct PassItem {
  const ModelTarget* target = nullptr;
  // Of a prompt of the candidate's length.
  const Branch* branch = nullptr;
  const PreparedBranch* parent = nullptr;
  // Position of the first changed token, and the sequence's tokens from there to the branch's
  // `end`.
  int64_t first = 0;
  std::vector<TokenId> tokens;
  // Its numbers' place among the pass's: first the surprisals of the counted tokens after the first
  // changed one, then one a read of the branch; those of rows before `first` are its parent's and
  // not written.
  size_t numbers_at = 0;

  int64_t surprisals() const;
  size_t reads_at() const { return numbers_at + static_cast<size_t>(surprisals()); }
  // Rows that pass all layers, and those behind them.
  int64_t full_rows() const;
  int64_t tail_rows() const;
  int64_t rows() const { return full_rows() + tail_rows(); }
};

// One pass's rows, a row for each token from an item's first changed one on. Rows that pass all
// layers come first, item by item; then each item's others, the deepest first. So the rows that a
// layer still needs are a prefix.
struct Layout {
  struct Item {
    // Its rows that pass all layers, one after another; then the others.
    int64_t row = 0;
    int64_t count = 0;
    int64_t tail_row = 0;
    int64_t tail_count = 0;
  };
  // A number that is read from a row.
  struct RowRead {
    const Read* read = nullptr;
    size_t item = 0;
    int64_t row = 0;
    // Of attention: the key's position.
    int64_t key = 0;
    // Among the pass's numbers.
    size_t number = 0;
  };

  // Of each row: its token, its position in its sequence, its item.
  std::vector<int64_t> ids;
  std::vector<int64_t> positions;
  std::vector<int64_t> item;
  std::vector<Item> items;
  int64_t full = 0;
  // At [i]: how many rows layer i computes.
  std::vector<int64_t> rows_at;
  // Rows whose next token's surprisal is asked for, that token, and the number that it is.
  std::vector<int64_t> head_rows;
  std::vector<int64_t> labels;
  std::vector<size_t> surprisal_numbers;
  // All other numbers.
  std::vector<RowRead> reads;

  // Whether the head's rows are the first rows in their order.
  bool HeadIsPrefix() const;
};

// The least multiple of `multiple` that is not below `size`.
inline int64_t RoundUp(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

Layout LayOut(const ModelConfig& config, std::span<const PassItem> items);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_LAYOUT_H_
