// Reading parents: one forward pass and two backward passes over distinct prompts. Includes torch.
#ifndef EPO_CORE_EVALUATE_PREPARE_H_
#define EPO_CORE_EVALUATE_PREPARE_H_

#include <memory>
#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/model/decoder.h"

namespace epo {

// Reads `requests`, valid and few enough for one pass, and adds its cost to `counters`. Throws
// c10::Error when the device fails.
std::vector<std::shared_ptr<const Prepared>> PreparePass(const Model& model,
                                                         std::span<const PrepareRequest> requests,
                                                         EvaluatorCounters& counters);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PREPARE_H_
