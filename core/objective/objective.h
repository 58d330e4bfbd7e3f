// What a job maximises: one number read inside the model for a prompt, the paper's f(t).
#ifndef EPO_CORE_OBJECTIVE_OBJECTIVE_H_
#define EPO_CORE_OBJECTIVE_OBJECTIVE_H_

#include <string_view>

#include "core/base/field_violation.h"
#include "core/model/model_config.h"

namespace epo {

// The activation of one MLP neuron at the last token: an input of the second MLP matrix of `layer`.
struct Objective {
  int layer = 0;
  int neuron = 0;

  friend bool operator==(const Objective&, const Objective&) = default;
};

// The fields of `objective` that do not exist in a model of this shape; empty when it is good.
// Fields are named "neuron.layer" and "neuron.neuron".
FieldViolations ValidateObjective(const Objective& objective, const ModelConfig& config);

}  // namespace epo

#endif  // EPO_CORE_OBJECTIVE_OBJECTIVE_H_
