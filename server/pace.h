// How fast the device has been of late.
#ifndef EPO_SERVER_PACE_H_
#define EPO_SERVER_PACE_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace epo {

// Work a second, averaged over about the last half minute in which there was any. Not thread-safe.
class Pace {
 public:
  // So much more was done in so many seconds; returns the pace.
  double Add(double work, double seconds) {
    const double keep = std::exp(-seconds / kWindowSeconds);
    work_ = work_ * keep + work;
    seconds_ = seconds_ * keep + seconds;
    return seconds_ > 0 ? work_ / seconds_ : 0;
  }

 private:
  static constexpr double kWindowSeconds = 30;

  double work_ = 0;
  double seconds_ = 0;
};

// How long rounds take, by their size: a small one takes longer than its rows, a large one is no
// measure of it. Thread-safe.
class RoundPace {
 public:
  void Add(int64_t rows, double seconds) {
    const absl::MutexLock lock(&mutex_);
    Size& size = sizes_[SizeOf(rows)];
    size.rows_per_second = size.pace.Add(static_cast<double>(rows), seconds);
  }

  // What a round of `rows` is expected to take; nothing before one of about that size, a quarter to
  // four times it, has run.
  std::optional<double> SecondsOf(int64_t rows) const {
    const absl::MutexLock lock(&mutex_);
    for (int away = 0; away <= 2; ++away) {
      for (const int size : {SizeOf(rows) - away, SizeOf(rows) + away}) {
        const auto it = sizes_.find(size);
        if (it != sizes_.end()) return static_cast<double>(rows) / it->second.rows_per_second;
      }
    }
    return std::nullopt;
  }

 private:
  struct Size {
    Pace pace;
    double rows_per_second = 0;
  };
  static int SizeOf(int64_t rows) { return std::bit_width(static_cast<uint64_t>(rows)); }

  mutable absl::Mutex mutex_;
  std::map<int, Size> sizes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace epo

#endif  // EPO_SERVER_PACE_H_
