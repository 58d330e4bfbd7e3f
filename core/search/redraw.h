// Draws children again that break their search's rules.
#ifndef EPO_CORE_SEARCH_REDRAW_H_
#define EPO_CORE_SEARCH_REDRAW_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/evaluate/evaluator.h"
#include "core/search/search.h"

namespace epo {

// The children of one search in the making.
struct Brood {
  // Between Ask() and Tell(). Null rules() leave the rest alone.
  Search* search = nullptr;
  // One a slot.
  std::span<const std::shared_ptr<const Prepared>> parents;
  const AllowedTokens* allowed = nullptr;
  // Ranks are drawn below it.
  int top_k = 0;
  // What Ask() returned, and for each the token that its child has in the changed position.
  std::span<Mutation> mutations;
  std::span<TokenId> tokens;
};

// Replaces every mutation, and its token, whose child breaks the rules of its search, or is its
// parent unchanged, by one whose child does neither: position and rank are drawn again a bounded
// number of times, then from all that the slot could have. What is drawn for a brood does not
// depend on the others. FAILED_PRECONDITION, naming the constraints, when they allow a slot no
// change at all; errors of the evaluator as they are.
absl::Status RedrawForbidden(Evaluator& evaluator, std::span<const Brood> broods);

}  // namespace epo

#endif  // EPO_CORE_SEARCH_REDRAW_H_
