// Which jobs share the next round: weighted fair queuing by virtual time, first between clients,
// then between the jobs of each.
#ifndef EPO_SERVER_FAIR_SHARE_H_
#define EPO_SERVER_FAIR_SHARE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace epo {

// What a job of this priority (0 to 100) gets beside one of priority 50: ten more is twice as much.
double PriorityWeight(int priority);

// One job's claim.
struct Share {
  // Clients have equal shares, however many jobs each has.
  std::string client;
  // Relative to the client's other jobs; positive.
  double weight = 1;
  // Rows that the job's next step takes: its evaluations times their tokens.
  int cost = 0;
  // Rows that the job has had, divided by its weight, on a clock that the client's jobs share.
  double virtual_time = 0;
};

// Not thread-safe.
class FairShare {
 public:
  // The job becomes runnable, for the first time or again: it neither gets back what it could not
  // use nor waits for what others had before.
  void Join(Share& share);

  // Indices into `shares`, which are all that are runnable, of the jobs for a round of at most
  // `budget` rows, in the order of their turns (ties: the earlier first). What no longer fits is
  // skipped, so that small jobs ride along with a big one; the first is taken whatever its cost, so
  // that every job has its turn. The round ends early where the next turn is that of a job or
  // client whose step it has already: more of the others would be more than their share.
  std::vector<size_t> PickRound(std::span<const Share* const> shares, int budget);

  // The job has made the step that it was picked for.
  void Charge(Share& share);

 private:
  struct Client {
    // Rows that its jobs have had.
    double time = 0;
    // Where its jobs' clock stands: the virtual time of the one that had the last turn.
    double clock = 0;
    // The last round in which it had a runnable job.
    int64_t round = 0;
  };

  absl::flat_hash_map<std::string, Client> clients_;
  // Where the clients' clock stands.
  double clock_ = 0;
  int64_t round_ = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_FAIR_SHARE_H_
