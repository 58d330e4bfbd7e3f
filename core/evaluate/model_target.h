// A target with its tensors. Includes torch.
#ifndef EPO_CORE_EVALUATE_MODEL_TARGET_H_
#define EPO_CORE_EVALUATE_MODEL_TARGET_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <vector>

#include "core/evaluate/combine.h"
#include "core/evaluate/plan.h"
#include "core/evaluate/target.h"

namespace epo {

// The vectors that reads dot with, [width] each on the model's device: float32, or float64 when the
// model is.
using TargetVectors = std::vector<at::Tensor>;

class ModelTarget final : public Target {
 public:
  // The parts that targets of other scales share.
  struct Parts {
    Objective objective;
    std::vector<Read> reads;
    // One a term.
    std::vector<TermReads> terms;
    TargetVectors vectors;
  };

  ModelTarget(const Model& model, std::shared_ptr<const Parts> parts, std::vector<double> scales,
              bool needs_scales);

  const Objective& objective() const override { return parts_->objective; }
  bool needs_scales() const override { return needs_scales_; }
  std::span<const double> scales() const override { return scales_; }
  std::shared_ptr<const Target> WithScales(std::span<const double> scales) const override;
  absl::Status CheckLength(int64_t tokens) const override;

  const Model& model() const { return model_; }
  const std::vector<Read>& reads() const { return parts_->reads; }
  const TargetVectors& vectors() const { return parts_->vectors; }
  const Combiner& combiner() const { return combiner_; }
  // Of a length that CheckLength() accepts. Kept for the target's life.
  const Plan& PlanFor(int64_t tokens) const;

 private:
  const absl::StatusOr<Plan>& Find(int64_t tokens) const;

  const Model& model_;
  const std::shared_ptr<const Parts> parts_;
  const std::vector<double> scales_;
  const bool needs_scales_;
  const Combiner combiner_;
  // By length. Filled on the evaluator's thread.
  mutable std::map<int64_t, absl::StatusOr<Plan>> plans_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_MODEL_TARGET_H_
