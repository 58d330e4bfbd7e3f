// Causal token attribution: what a prompt's target becomes when one of its tokens is another one
// (the paper's section 4).
#ifndef EPO_CORE_ATTRIBUTE_ATTRIBUTE_H_
#define EPO_CORE_ATTRIBUTE_ATTRIBUTE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "core/evaluate/evaluator.h"

namespace epo {

// A token in another's place, and the whole prompt's score with it.
struct Substitute {
  TokenId token = 0;
  Score score;
};

// The `count` substitutes that the target's gradient promises the most, best promise first, at each
// of the positions `first` to before `last` of `parent`, which is prepared with gradients; the
// token that stands there is none. Fewer where `allowed` has fewer. INVALID_ARGUMENT for positions
// that the prompt has not or a count below 1; the evaluator's errors. On the evaluator's thread.
absl::StatusOr<std::vector<std::vector<Substitute>>> AttributeTokens(Evaluator& evaluator,
                                                                     const Prepared& parent,
                                                                     int first, int last, int count,
                                                                     const AllowedTokens& allowed);

}  // namespace epo

#endif  // EPO_CORE_ATTRIBUTE_ATTRIBUTE_H_
