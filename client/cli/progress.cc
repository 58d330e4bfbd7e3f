#include "client/cli/progress.h"

#include <algorithm>

namespace epo::cli {
namespace {

// Steps that the pace is averaged over.
constexpr size_t kWindow = 20;

}  // namespace

void Progress::Found(const v1::Job& job) {
  total_ = job.spec().iterations();
  replayed_ = job.completed_iterations();
  done_ = std::max(done_, replayed_);
  run_seconds_ = job.run_seconds();
  run_iterations_ = job.completed_iterations();
  evaluations_ = job.evaluations();
  // What came before a lost connection does not tell the pace after it.
  samples_.clear();
}

void Progress::Step(const v1::Step& step, absl::Time now) {
  if (step.index() < replayed_) return;
  done_ = step.index() + 1;
  samples_.push_back({now, done_, step.evaluations()});
  if (samples_.size() > kWindow) samples_.pop_front();
}

void Progress::Ended(const v1::Job& job) {
  done_ = job.completed_iterations();
  run_seconds_ = job.run_seconds();
  run_iterations_ = job.completed_iterations();
  evaluations_ = job.evaluations();
  samples_.clear();
}

std::optional<double> Progress::EvaluationsPerSecond() const {
  if (samples_.size() >= 2) {
    const double seconds = absl::ToDoubleSeconds(samples_.back().time - samples_.front().time);
    if (seconds > 0) return (samples_.back().evaluations - samples_.front().evaluations) / seconds;
  }
  if (run_seconds_ > 0) return evaluations_ / run_seconds_;
  return std::nullopt;
}

std::optional<absl::Duration> Progress::Remaining(absl::Time now) const {
  const int left = total_ - done_;
  if (samples_.size() >= 2) {
    const absl::Duration step = (samples_.back().time - samples_.front().time) /
                                (samples_.back().done - samples_.front().done);
    return std::max(absl::ZeroDuration(), left * step - (now - samples_.back().time));
  }
  if (run_iterations_ > 0 && run_seconds_ > 0) {
    return left * absl::Seconds(run_seconds_ / run_iterations_);
  }
  return std::nullopt;
}

}  // namespace epo::cli
