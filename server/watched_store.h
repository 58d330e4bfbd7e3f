// Whether the store takes writes: the one place that knows, whoever was refused.
#ifndef EPO_SERVER_WATCHED_STORE_H_
#define EPO_SERVER_WATCHED_STORE_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/forwarding_store.h"

namespace epo {

// A store whose refusals of what calls write (new jobs and sweeps, vectors, deletions) are answered
// as the storage guard answers, UNAVAILABLE with RetryInfo, and told. From then on a small write is
// tried until the store takes it. What the jobs' own writes meet is tried again by those who write
// it, and only told here, with SetJobWrites(). Thread-safe.
class WatchedStore final : public ForwardingStore {
 public:
  // Is told with what error the store has begun to refuse writes; OK: it takes them again. One call
  // at a time, on any thread.
  using Told = std::function<void(const absl::Status&)>;

  // `store` lies in `dir`; `retry`: how long to wait between two tries.
  WatchedStore(std::unique_ptr<Store> store, std::filesystem::path dir, absl::Duration retry);
  ~WatchedStore() override;

  // From now on; null, at the end: nobody.
  void Tell(Told told) ABSL_LOCKS_EXCLUDED(mutex_);

  // The jobs' writes are refused with this error from now on; OK: they are taken again.
  void SetJobWrites(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& request_id,
                                    const std::string& request, int max_waiting) override;
  absl::StatusOr<CreatedSweep> CreateSweep(const v1::Sweep& sweep, const std::vector<v1::Job>& jobs,
                                           const std::string& request_id,
                                           const std::string& request, int max_waiting) override;
  absl::Status PutVector(const StoredVector& vector, const std::string& client,
                         int max_vectors) override;
  absl::Status DeleteJob(const std::string& id) override;
  absl::Status DeleteSweep(const std::string& id) override;

 private:
  // Notes what a call's write met, and gives what to answer.
  absl::Status Answer(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  void Set(absl::Status& which, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasToTry() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !call_writes_.ok();
  }
  // False at the end.
  bool WaitForTry() ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::filesystem::path dir_;
  const absl::Duration retry_;
  absl::Mutex mutex_;
  Told told_ ABSL_GUARDED_BY(mutex_);
  absl::Status call_writes_ ABSL_GUARDED_BY(mutex_);
  absl::Status job_writes_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace epo

#endif  // EPO_SERVER_WATCHED_STORE_H_
