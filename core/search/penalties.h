// The population's cross-entropy penalties.
#ifndef EPO_CORE_SEARCH_PENALTIES_H_
#define EPO_CORE_SEARCH_PENALTIES_H_

#include <vector>

namespace epo {

// `count` penalties spaced evenly in their logarithm from `min` to `max`, both positive, ascending:
// exp(linspace(log min, log max)) in float32 by torch's own kernels, whose last bit decides near
// ties as it does in the reference implementation.
std::vector<float> LogSpacedPenalties(double min, double max, int count);

}  // namespace epo

#endif  // EPO_CORE_SEARCH_PENALTIES_H_
