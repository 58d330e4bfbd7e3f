#include "server/rate_limit.h"

#include <algorithm>

namespace epo {

double TokenBucket::TokensAt(absl::Time now) const {
  if (now <= at_) return tokens_;
  return std::min(capacity_, tokens_ + absl::ToDoubleSeconds(now - at_) * per_second_);
}

absl::Duration TokenBucket::Take(absl::Time now) {
  tokens_ = TokensAt(now);
  at_ = std::max(at_, now);
  if (tokens_ < 1) return absl::Seconds((1 - tokens_) / per_second_);
  tokens_ -= 1;
  return absl::ZeroDuration();
}

bool TokenBucket::Full(absl::Time now) const { return TokensAt(now) >= capacity_; }

absl::Duration RateLimiter::Take(const std::string& name, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (buckets_.size() >= sweep_at_) {
    absl::erase_if(buckets_, [&](const auto& entry) { return entry.second.Full(now); });
    sweep_at_ = std::max<size_t>(1024, 2 * buckets_.size());
  }
  return buckets_.try_emplace(name, per_second_, capacity_).first->second.Take(now);
}

size_t RateLimiter::size() const {
  absl::MutexLock lock(&mutex_);
  return buckets_.size();
}

}  // namespace epo
