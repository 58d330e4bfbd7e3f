// Counts what the model does.
#ifndef EPO_SERVER_METERED_EVALUATOR_H_
#define EPO_SERVER_METERED_EVALUATOR_H_

#include <memory>

#include "core/evaluate/evaluator.h"
#include "server/metrics.h"

namespace epo {

// `evaluator`, with its counters and failures carried over to `metrics`, which must outlive it,
// after each call.
std::unique_ptr<Evaluator> MeterEvaluator(std::unique_ptr<Evaluator> evaluator, Metrics& metrics);

}  // namespace epo

#endif  // EPO_SERVER_METERED_EVALUATOR_H_
