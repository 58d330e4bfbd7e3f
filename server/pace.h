// How fast the device has been of late.
#ifndef EPO_SERVER_PACE_H_
#define EPO_SERVER_PACE_H_

#include <cmath>

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

}  // namespace epo

#endif  // EPO_SERVER_PACE_H_
