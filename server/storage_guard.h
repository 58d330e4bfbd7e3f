// Whether the state directory can take another job.
#ifndef EPO_SERVER_STORAGE_GUARD_H_
#define EPO_SERVER_STORAGE_GUARD_H_

#include <cstdint>
#include <filesystem>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/store.h"

namespace epo {

// The answer to a write that the store, which lies in `dir`, refused with `status` for now:
// UNAVAILABLE with RetryInfo. Of where the store lies it says nothing.
absl::Status StoreRefusesWrites(const absl::Status& status, const std::filesystem::path& dir);

struct StorageLimits {
  // Bytes that the store may take before new jobs are refused; 0: any number.
  int64_t max_state_bytes = 0;
  // Bytes of the file system that stay free of new jobs, for the steps of those there are.
  int64_t min_free_bytes = int64_t{256} << 20;
};

// Thread-safe.
class StorageGuard {
 public:
  // `store` lies in `dir` and must outlive the guard.
  StorageGuard(const Store& store, std::filesystem::path dir, const StorageLimits& limits)
      : store_(store), dir_(std::move(dir)), limits_(limits) {}

  // OK, or what to answer to a new job: UNAVAILABLE with RetryInfo while the store refuses writes,
  // RESOURCE_EXHAUSTED when a limit is reached.
  absl::Status Admit() const;

  // The store refuses writes with this error from now on; OK: it takes them again.
  void SetWrites(const absl::Status& status);

 private:
  const Store& store_;
  const std::filesystem::path dir_;
  const StorageLimits limits_;
  mutable absl::Mutex mutex_;
  absl::Status writes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace epo

#endif  // EPO_SERVER_STORAGE_GUARD_H_
