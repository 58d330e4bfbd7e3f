// Threads for work that may wait for the disk, so that gRPC's own threads and the model's never do.
#ifndef EPO_SERVER_WORKER_POOL_H_
#define EPO_SERVER_WORKER_POOL_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace epo {

// Thread-safe. Tasks start in the order of their posting. They must not throw.
class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  // Runs what was posted, then joins the threads. No task may be posted any more by others than the
  // running tasks.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Post(std::function<void()> task);

  // Tasks that wait for a thread.
  size_t waiting() const;

 private:
  void Work();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !tasks_.empty(); }

  mutable absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace epo

#endif  // EPO_SERVER_WORKER_POOL_H_
