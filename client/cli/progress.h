// How far a followed job is and how fast it goes.
#ifndef EPO_CLIENT_CLI_PROGRESS_H_
#define EPO_CLIENT_CLI_PROGRESS_H_

#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <optional>

#include "epo/v1/job.pb.h"

namespace epo::cli {

// Fed with a watch's updates; time is passed in. Not thread-safe.
class Progress {
 public:
  // The job as a watch found it. Steps before its completed ones are a replay and say nothing about
  // speed.
  void Found(const v1::Job& job);
  void Step(const v1::Step& step, absl::Time now);
  void Ended(const v1::Job& job);

  // Iterations done and wanted. `total` is 0 until Found().
  int done() const { return done_; }
  int total() const { return total_; }
  // The latest steps' pace; before two of them came by, the job's own average of device time;
  // absent when that is unknown too.
  std::optional<double> EvaluationsPerSecond() const;
  // Time until the last iteration at the latest steps' pace.
  std::optional<absl::Duration> Remaining(absl::Time now) const;

 private:
  struct Sample {
    absl::Time time;
    int done;
    int64_t evaluations;
  };

  // Seconds of device time that the job's steps took and what they scored, as the server counts
  // them.
  double run_seconds_ = 0;
  int64_t evaluations_ = 0;
  int run_iterations_ = 0;
  int replayed_ = 0;
  int done_ = 0;
  int total_ = 0;
  std::deque<Sample> samples_;
};

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_PROGRESS_H_
