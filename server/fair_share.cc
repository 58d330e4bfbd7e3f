#include "server/fair_share.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace epo {
namespace {

// A client's claims while a round is being filled.
struct Queue {
  double time = 0;
  // By virtual time.
  std::vector<size_t> jobs;
  // The first of `jobs` that was neither taken nor found too big.
  size_t next = 0;
  // The least virtual time of those taken, after their step.
  double again = std::numeric_limits<double>::infinity();

  bool exhausted() const { return next == jobs.size(); }
  bool taken() const { return std::isfinite(again); }
};

}  // namespace

double PriorityWeight(int priority) { return std::exp2((priority - 50) / 10.0); }

void FairShare::Join(Share& share) {
  share.virtual_time = std::max(share.virtual_time, clients_[share.client].clock);
}

std::vector<size_t> FairShare::PickRound(std::span<const Share* const> shares, int budget) {
  ++round_;
  std::vector<Queue> queues;
  absl::flat_hash_map<std::string, size_t> index;
  for (size_t i = 0; i < shares.size(); ++i) {
    const auto [it, is_new] = index.try_emplace(shares[i]->client, queues.size());
    if (is_new) {
      Client& client = clients_[shares[i]->client];
      // One that comes back joins where the others are.
      if (client.round != round_ - 1) client.time = std::max(client.time, clock_);
      client.round = round_;
      queues.emplace_back().time = client.time;
    }
    queues[it->second].jobs.push_back(i);
  }
  for (Queue& queue : queues) {
    std::stable_sort(queue.jobs.begin(), queue.jobs.end(), [&](size_t a, size_t b) {
      return shares[a]->virtual_time < shares[b]->virtual_time;
    });
  }

  std::vector<size_t> picked;
  int64_t left = budget;
  while (true) {
    // Whose turn it is; of several, one that has a job to give.
    Queue* turn = nullptr;
    for (Queue& queue : queues) {
      if (queue.exhausted() && !queue.taken()) continue;
      if (turn == nullptr || queue.time < turn->time ||
          (queue.time == turn->time && turn->exhausted() && !queue.exhausted())) {
        turn = &queue;
      }
    }
    if (turn == nullptr || turn->exhausted()) return picked;
    const Share& share = *shares[turn->jobs[turn->next]];
    if (turn->again < share.virtual_time) return picked;
    const size_t job = turn->jobs[turn->next++];
    if (!picked.empty() && share.cost > left) continue;
    picked.push_back(job);
    left -= share.cost;
    turn->time += share.cost;
    turn->again = std::min(turn->again, share.virtual_time + share.cost / share.weight);
  }
}

void FairShare::Charge(Share& share) {
  Client& client = clients_[share.client];
  client.clock = std::max(client.clock, share.virtual_time);
  share.virtual_time += share.cost / share.weight;
  clock_ = std::max(clock_, client.time);
  client.time += share.cost;
}

}  // namespace epo
