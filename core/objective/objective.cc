#include "core/objective/objective.h"

#include "absl/strings/str_cat.h"

namespace epo {

FieldViolations ValidateObjective(const Objective& objective, const ModelConfig& config) {
  FieldViolations violations;
  if (objective.layer < 0 || objective.layer >= config.layers) {
    violations.push_back(
        {"neuron.layer",
         absl::StrCat("is ", objective.layer, ", but must be from 0 to ", config.layers - 1)});
  }
  if (objective.neuron < 0 || objective.neuron >= config.intermediate_size) {
    violations.push_back(
        {"neuron.neuron", absl::StrCat("is ", objective.neuron, ", but must be from 0 to ",
                                       config.intermediate_size - 1)});
  }
  return violations;
}

}  // namespace epo
