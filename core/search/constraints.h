// Which prompts a search may not hold.
#ifndef EPO_CORE_SEARCH_CONSTRAINTS_H_
#define EPO_CORE_SEARCH_CONSTRAINTS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/field_violation.h"
#include "core/base/types.h"
#include "core/model/allowed_tokens.h"
#include "core/model/model.h"
#include "core/model/tokenizer.h"

namespace epo {

struct SearchOptions;

// What is empty, false or absent forbids nothing. The comments of epo.v1.Constraints say what each
// field means.
struct Constraints {
  // Of single tokens.
  bool ascii_only = false;
  bool decodable_only = false;
  std::vector<TokenId> banned_ids;
  std::string banned_token_regex;
  // Of whole prompts.
  std::vector<std::string> banned_texts;
  bool retokenizable = false;
  // A set.
  std::vector<int> frozen_positions;
  // Of what may be kept.
  std::optional<double> max_cross_entropy;

  // Whether a prompt's cross-entropy, in nats a token, is not above the ceiling. NaN is above any.
  bool Affords(float cross_entropy) const {
    return !max_cross_entropy || cross_entropy <= *max_cross_entropy;
  }

  friend bool operator==(const Constraints&, const Constraints&) = default;
};

// The positions of a prompt of `tokens` tokens that are not frozen, ascending.
std::vector<int> OpenPositions(const Constraints& constraints, int tokens);

// What the constraints leave of `ids`, in their order. A field that leaves nothing is added to
// `violations`, named as "constraints.ascii_only"; so is one that cannot be applied, which then
// forbids nothing.
std::vector<TokenId> Narrow(std::vector<TokenId> ids, const Constraints& constraints,
                            const Tokenizer& tokenizer, FieldViolations& violations);

// Every field of `options` that is bad for its constraints' sake: of these themselves, of the
// initial prompts, which must keep them, and top_k. `allowed`, ascending, is what
// Narrow() left.
// ValidateSearchOptions() finds the rest.
FieldViolations ValidateConstraints(const SearchOptions& options, const Tokenizer& tokenizer,
                                    const std::vector<TokenId>& allowed);

// The tokens that a search with these options, which must be valid, draws and proposes.
std::shared_ptr<const AllowedTokens> MakeAllowedTokens(const Model& model,
                                                       const SearchOptions& options);

}  // namespace epo

#endif  // EPO_CORE_SEARCH_CONSTRAINTS_H_
