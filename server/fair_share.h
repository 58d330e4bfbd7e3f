// Which jobs share the next round: fair queuing by virtual time.
#ifndef EPO_SERVER_FAIR_SHARE_H_
#define EPO_SERVER_FAIR_SHARE_H_

#include <cstddef>
#include <span>
#include <vector>

namespace epo {

// One job's place in the queue. Not thread-safe.
struct Share {
  // Rows that the job has had, divided by its weight, on a clock that all jobs share.
  double virtual_time = 0;
  // Relative; positive.
  double weight = 1;
  // Rows that the job's next step takes: its evaluations times their tokens.
  int cost = 0;

  void Charge() { virtual_time += cost / weight; }
};

// Indices into `shares` of the jobs for a round of at most `budget` rows: in the order of
// their virtual times (ties: the earlier first), skipping those that no longer fit, so that small
// jobs ride along with a big one. The first is taken whatever its cost, so every job has its turn.
std::vector<size_t> PickRound(std::span<const Share> shares, int budget);

// The virtual time at which a job joins `shares`: their least, so that it neither waits for what
// others had before nor makes them wait. 0 when there are none.
double JoinTime(std::span<const Share> shares);

}  // namespace epo

#endif  // EPO_SERVER_FAIR_SHARE_H_
