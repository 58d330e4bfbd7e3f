#include "server/fair_share.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace epo {

std::vector<size_t> PickRound(std::span<const Share> shares, int budget) {
  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return shares[a].virtual_time < shares[b].virtual_time;
  });
  std::vector<size_t> picked;
  int64_t left = budget;
  for (size_t i : order) {
    if (!picked.empty() && shares[i].cost > left) continue;
    picked.push_back(i);
    left -= shares[i].cost;
  }
  return picked;
}

double JoinTime(std::span<const Share> shares) {
  const auto least = std::min_element(
      shares.begin(), shares.end(),
      [](const Share& a, const Share& b) { return a.virtual_time < b.virtual_time; });
  return least == shares.end() ? 0 : least->virtual_time;
}

}  // namespace epo
