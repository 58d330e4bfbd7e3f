// How many rows a round may take: less after the device ran out of memory, slowly more again.
#ifndef EPO_SERVER_ROW_BUDGET_H_
#define EPO_SERVER_ROW_BUDGET_H_

namespace epo {

// Not thread-safe.
class RowBudget {
 public:
  // Never below this many rows, whatever happens.
  static constexpr int kLeast = 64;

  // Begins with `most`.
  explicit RowBudget(int most);

  int rows() const { return rows_; }
  bool least() const { return rows_ == least_; }

  // A round of `rows` did not fit: the next ones take at most half of that. False when the budget
  // is at its least already.
  bool Halve(int rows);
  // A round went well: 1/64 more.
  void Grow();

 private:
  const int most_;
  const int least_;
  int rows_;
};

}  // namespace epo

#endif  // EPO_SERVER_ROW_BUDGET_H_
