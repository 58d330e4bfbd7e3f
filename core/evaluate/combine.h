// From the numbers read in a prompt to f(t), and the weight of each of them in its gradient. Knows
// no torch.
#ifndef EPO_CORE_EVALUATE_COMBINE_H_
#define EPO_CORE_EVALUATE_COMBINE_H_

#include <optional>
#include <span>
#include <vector>

#include "core/evaluate/plan.h"
#include "core/objective/objective.h"

namespace epo {

// What each branch of a plan has read, and weights of these: [branch][read].
using BranchNumbers = std::vector<std::vector<double>>;

struct Combined {
  // f(t).
  double target = 0;
  // Each term's value, neither weighted nor scaled, the mean over the contexts.
  std::vector<double> terms;
};

// How one objective's numbers become f(t) (docs/epo.md, "Objectives"). Borrows its arguments.
class Combiner {
 public:
  // `terms` and `scales`: one a term.
  Combiner(const Objective& objective, std::span<const TermReads> terms,
           std::span<const double> scales)
      : objective_(objective), terms_(terms), scales_(scales) {}

  // f(t) of what was read; with `gradient`, also its derivative with respect to each read, where it
  // has one; at a maximum or minimum of equal values the first counts, at a threshold none.
  Combined Combine(const Plan& plan, const BranchNumbers& reads, BranchNumbers* gradient) const;

  // The derivative where it depends on nothing that is read.
  std::optional<BranchNumbers> ConstantGradient(const Plan& plan) const;

 private:
  bool IsLinear() const;
  // A term's value; adds `factor` times its derivative to `gradient`.
  double Value(size_t term, const PlannedTerm& planned, const BranchNumbers& reads, double factor,
               BranchNumbers* gradient) const;

  const Objective& objective_;
  const std::span<const TermReads> terms_;
  const std::span<const double> scales_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_COMBINE_H_
