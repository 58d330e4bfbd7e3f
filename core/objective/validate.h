// Whether an objective can be read in a model.
#ifndef EPO_CORE_OBJECTIVE_VALIDATE_H_
#define EPO_CORE_OBJECTIVE_VALIDATE_H_

#include <optional>

#include "core/base/field_violation.h"
#include "core/model/model_config.h"
#include "core/objective/objective.h"

namespace epo {

// Every field of `objective` that a model of this shape cannot read in prompts of `tokens` tokens
// (absent: of any length that suits it); empty when it is good. Fields are named as in the wire
// contract's Objective ("terms[2].direction.vector", "terms[0].position", "temperature"); those of
// contexts "contexts[1].prefix", "contexts".
FieldViolations ValidateObjective(const Objective& objective, const ModelConfig& config,
                                  std::optional<int> tokens);

}  // namespace epo

#endif  // EPO_CORE_OBJECTIVE_VALIDATE_H_
