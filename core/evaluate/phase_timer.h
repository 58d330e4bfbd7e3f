// Seconds spent in a scope, on a monotonic clock.
#ifndef EPO_CORE_EVALUATE_PHASE_TIMER_H_
#define EPO_CORE_EVALUATE_PHASE_TIMER_H_

#include <chrono>

namespace epo {

// Adds the seconds from its making to its end to `total`, which must outlive it.
class PhaseTimer {
 public:
  explicit PhaseTimer(double& total) : total_(total), start_(std::chrono::steady_clock::now()) {}
  ~PhaseTimer() {
    total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  double& total_;
  const std::chrono::steady_clock::time_point start_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PHASE_TIMER_H_
