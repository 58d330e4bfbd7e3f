// How often something may happen.
#ifndef EPO_SERVER_RATE_LIMIT_H_
#define EPO_SERVER_RATE_LIMIT_H_

#include <cstddef>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace epo {

// Holds up to `capacity` tokens and gains `per_second` a second. Not thread-safe; times must not go
// back, or the bucket waits until they are where they were.
class TokenBucket {
 public:
  TokenBucket(double per_second, double capacity)
      : per_second_(per_second), capacity_(capacity), tokens_(capacity) {}

  // Takes a token and returns zero, or how long until there is one.
  absl::Duration Take(absl::Time now);
  bool Full(absl::Time now) const;

 private:
  double TokensAt(absl::Time now) const;

  double per_second_;
  double capacity_;
  double tokens_;
  absl::Time at_ = absl::InfinitePast();
};

// A bucket for each name; those that are full again are forgotten. Thread-safe.
class RateLimiter {
 public:
  RateLimiter(double per_second, double capacity) : per_second_(per_second), capacity_(capacity) {}

  // Zero when the name's next event may happen now, else how long until it may.
  absl::Duration Take(const std::string& name, absl::Time now);

  // Names with a bucket.
  size_t size() const;

 private:
  const double per_second_;
  const double capacity_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, TokenBucket> buckets_ ABSL_GUARDED_BY(mutex_);
  // When so many names have a bucket, the full ones go.
  size_t sweep_at_ ABSL_GUARDED_BY(mutex_) = 1024;
};

}  // namespace epo

#endif  // EPO_SERVER_RATE_LIMIT_H_
