// An objective made runnable on a model.
#ifndef EPO_CORE_EVALUATE_TARGET_H_
#define EPO_CORE_EVALUATE_TARGET_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/model/model.h"
#include "core/objective/objective.h"

namespace epo {

// Immutable to its users. Made, used and, on a CUDA model, dropped on the evaluator's thread.
class Target {
 public:
  // Reads a cosine's text, and waits for it. INVALID_ARGUMENT with the first of what
  // ValidateObjective finds; RESOURCE_EXHAUSTED when the device's memory does not suffice.
  static absl::StatusOr<std::shared_ptr<const Target>> Create(const Model& model,
                                                              Objective objective);
  virtual ~Target() = default;

  virtual const Objective& objective() const = 0;

  // Whether a term's scale is yet to be measured: WithScales() makes a target of it whose values
  // are in their right proportions.
  virtual bool needs_scales() const = 0;

  // One a term: what it is divided by; 1 where that is yet to be measured.
  virtual std::span<const double> scales() const = 0;

  // With these scales, one a term, none of them to be measured any more. Shares the vectors.
  virtual std::shared_ptr<const Target> WithScales(std::span<const double> scales) const = 0;

  // OK, or INVALID_ARGUMENT with why a prompt of so many tokens cannot be read: a position that it
  // has not, or no room for it between the contexts' fixed tokens.
  virtual absl::Status CheckLength(int64_t tokens) const = 0;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_TARGET_H_
