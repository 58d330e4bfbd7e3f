// Objectives of the core as JSON, for tests that come from outside.
#ifndef EPO_TESTS_TOOLS_OBJECTIVE_JSON_H_
#define EPO_TESTS_TOOLS_OBJECTIVE_JSON_H_

#include "core/objective/objective.h"
#include "nlohmann/json.hpp"

namespace epo {

// {"terms": [TERM], "combine": "sum" | "soft_min", "temperature", "minimize", "contexts":
// [{"prefix": ids, "suffix": ids}], "across": "mean" | "min", "fluency_over_suffix"}; all but the
// terms may be absent. A TERM has one of
//   "neuron": [layer, neuron]
//   "direction": {"layer", "point": POINT, "vector", "standardise"}
//   "feature": {"layer", "point", "encoder", "bias", "decoder_bias", "activation": "none" | "relu"
//   |
//     "jump_relu", "threshold"}
//   "attention": [layer, head, key]
//   "output": {"layer", "head", "vector"}
//   "logit": token
//   "logit_difference": [token] or [token, other]
//   "continuation": ids
//   "cosine": {"layer", "point", "vector" or "text"}
// and perhaps "position": {"frame": "sequence" | "prompt", "reduce": "one" | "max" | "mean",
// "first", "last"}, "weight", "scale" (a number; null: to be measured). A POINT is "pre_block",
// "post_attention" or "post_block". Throws nlohmann::json::exception for anything else.
Objective ObjectiveFromJson(const nlohmann::json& json);

}  // namespace epo

#endif  // EPO_TESTS_TOOLS_OBJECTIVE_JSON_H_
