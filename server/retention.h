// Deletes jobs that ended long ago.
#ifndef EPO_SERVER_RETENTION_H_
#define EPO_SERVER_RETENTION_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/store.h"

namespace epo {

// Deletes every job that ended before `cutoff`, with a line in the log for each; a sweep's jobs go
// together, once the last of them ended before it. Returns how many jobs; after an error some may
// be gone.
absl::StatusOr<int> DeleteEndedBefore(Store& store, absl::Time cutoff);

// Has a thread that now and then deletes the jobs that ended more than `retention` ago: at the
// latest a tenth of it, or an hour, later.
class RetentionSweeper {
 public:
  // `store` must outlive the sweeper. `retention` is positive.
  RetentionSweeper(Store& store, absl::Duration retention);
  // Waits for a deletion under way.
  ~RetentionSweeper();
  RetentionSweeper(const RetentionSweeper&) = delete;
  RetentionSweeper& operator=(const RetentionSweeper&) = delete;

 private:
  void Run();

  Store& store_;
  const absl::Duration retention_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace epo

#endif  // EPO_SERVER_RETENTION_H_
