#include "core/attribute/attribute.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace epo {

absl::StatusOr<std::vector<std::vector<Substitute>>> AttributeTokens(Evaluator& evaluator,
                                                                     const Prepared& parent,
                                                                     int first, int last, int count,
                                                                     const AllowedTokens& allowed) {
  const Prompt& prompt = parent.prompt();
  if (first < 0 || last < first || last > static_cast<int>(prompt.size()) || count < 1) {
    return absl::InvalidArgumentError(absl::StrCat("no ", count, " substitutes at the positions ",
                                                   first, " to ", last - 1, " of ", prompt.size(),
                                                   " tokens"));
  }
  // One more, since the token itself may be among them.
  const int ranks = std::min(count + 1, static_cast<int>(allowed.ids.size()));
  std::vector<SubstituteQuery> queries;
  for (int position = first; position < last; ++position) {
    for (int rank = 0; rank < ranks; ++rank) {
      queries.push_back({&parent, /*penalty=*/0, position, rank, &allowed});
    }
  }
  const auto tokens = evaluator.Substitutes(queries);
  if (!tokens.ok()) return tokens.status();

  std::vector<std::vector<Substitute>> substitutes(last - first);
  std::vector<Candidate> candidates;
  for (size_t q = 0; q < queries.size(); ++q) {
    const int position = queries[q].position;
    std::vector<Substitute>& here = substitutes[position - first];
    const TokenId token = (*tokens)[q];
    if (token == prompt[position] || static_cast<int>(here.size()) == count) continue;
    here.push_back({token, {}});
    Candidate& candidate = candidates.emplace_back(Candidate{&parent, position, {}});
    candidate.tokens.assign(prompt.begin() + position, prompt.end());
    candidate.tokens[0] = token;
  }
  const auto scores = evaluator.ScoreCandidates(candidates);
  if (!scores.ok()) return scores.status();
  size_t next = 0;
  for (std::vector<Substitute>& here : substitutes) {
    for (Substitute& substitute : here) substitute.score = (*scores)[next++];
  }
  return substitutes;
}

}  // namespace epo
