// Ranks tokens by the one-hot gradient of -f + lambda * x. Includes torch.
#ifndef EPO_CORE_EVALUATE_SUBSTITUTES_H_
#define EPO_CORE_EVALUATE_SUBSTITUTES_H_

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/prepared_prompt.h"

namespace epo {

// The gradient, float32 [vocab], of -f + penalty * x with respect to the one-hot token at
// `position` of `parent` (docs/epo.md): the embedding path, and for position >= 1 the label path.
at::Tensor TokenGradient(const Model& model, const PreparedPrompt& parent, int position,
                         float penalty);

// As Evaluator::Substitutes, for valid queries; adds its cost to `counters`. Throws c10::Error when
// the device fails.
std::vector<TokenId> RankSubstitutes(const Model& model, std::span<const SubstituteQuery> queries,
                                     EvaluatorCounters& counters);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_SUBSTITUTES_H_
