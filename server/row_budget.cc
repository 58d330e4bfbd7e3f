#include "server/row_budget.h"

#include <algorithm>

namespace epo {

RowBudget::RowBudget(int most) : most_(most), least_(std::min(most, kLeast)), rows_(most) {}

bool RowBudget::Halve(int rows) {
  if (least()) return false;
  rows_ = std::max(least_, std::min(rows, rows_) / 2);
  return true;
}

void RowBudget::Grow() { rows_ += std::min(most_ - rows_, std::max(1, rows_ / 64)); }

}  // namespace epo
