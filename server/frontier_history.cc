#include "server/frontier_history.h"

#include <cstddef>

#include "server/convert.h"

namespace epo {

Iteration FrontierHistory::Reduce(const Iteration& whole) {
  Iteration reduced{.index = whole.index, .restart_penalty = whole.restart_penalty};
  for (int member : whole.keep) {
    reduced.keep.push_back(static_cast<int>(reduced.keep.size()));
    reduced.ids.push_back(whole.ids[member]);
    reduced.scores.push_back(whole.scores[member]);
  }
  for (size_t i = 0; i < whole.ids.size(); ++i) {
    if (!seen_.Add(whole.ids[i], whole.scores[i])) continue;
    reduced.ids.push_back(whole.ids[i]);
    reduced.scores.push_back(whole.scores[i]);
  }
  return reduced;
}

void LeaveSurvivors(v1::Iteration& reduced) {
  const int survivors = reduced.keep_size();
  reduced.mutable_ids()->DeleteSubrange(survivors, reduced.ids_size() - survivors);
  reduced.mutable_target()->Truncate(survivors);
  reduced.mutable_cross_entropy()->Truncate(survivors);
}

std::vector<ScoredPrompt> FrontierMembers(const v1::Iteration& reduced) {
  std::vector<ScoredPrompt> members = Converter::FromIteration(reduced);
  members.erase(members.begin(), members.begin() + reduced.keep_size());
  return members;
}

}  // namespace epo
