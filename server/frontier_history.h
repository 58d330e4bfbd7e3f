// What is kept of the iterations of a job whose history is FRONTIER.
#ifndef EPO_SERVER_FRONTIER_HISTORY_H_
#define EPO_SERVER_FRONTIER_HISTORY_H_

#include <vector>

#include "core/search/frontier.h"
#include "core/search/search.h"
#include "epo/v1/job.pb.h"

namespace epo {

// Reduces the iterations of one job, in their order. A reduced iteration's pool has the survivors,
// one a slot (`keep` is 0 to M-1), and after them, in the order of the whole pool, the members that
// were on the Pareto frontier when they were scored: no other can be on it later, so the frontier
// of these is that of the whole history, point for point. Not thread-safe.
class FrontierHistory {
 public:
  // A job that is continued may begin with a new object: its iterations then keep a few members
  // more, which changes no frontier.
  Iteration Reduce(const Iteration& whole);

 private:
  ParetoSet seen_;
};

// Of a reduced iteration: what the client is shown, the survivors alone.
void LeaveSurvivors(v1::Iteration& reduced);

// Of a reduced iteration: the members to build a frontier from.
std::vector<ScoredPrompt> FrontierMembers(const v1::Iteration& reduced);

}  // namespace epo

#endif  // EPO_SERVER_FRONTIER_HISTORY_H_
