// Every open stream, so that a drain can finish each of them and idle ones get heartbeats.
#ifndef EPO_SERVER_STREAM_REGISTRY_H_
#define EPO_SERVER_STREAM_REGISTRY_H_

#include <grpcpp/support/status.h>

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace epo {

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  virtual ~Stream() = default;
  // Ends the stream with `status` as soon as the write under way, if any, is done. Returns at once.
  virtual void Drain(const grpc::Status& status) = 0;
  // Called about once a second. Returns at once.
  virtual void Tick(absl::Time now) = 0;
};

// Thread-safe. Has one thread of its own, for the ticks.
class StreamRegistry {
 public:
  StreamRegistry();
  ~StreamRegistry();
  StreamRegistry(const StreamRegistry&) = delete;
  StreamRegistry& operator=(const StreamRegistry&) = delete;

  void Add(const std::shared_ptr<Stream>& stream);
  void Remove(const Stream* stream);

  // Drains every open stream and each one added later.
  void Drain(const grpc::Status& status);

  // Returns once no stream is open, at `deadline` at the latest.
  void WaitUntilEmpty(absl::Time deadline) const;

 private:
  std::vector<std::shared_ptr<Stream>> Open() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool NoneOpen() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return streams_.empty(); }
  void Run();

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<const Stream*, std::weak_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> drained_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread ticker_;
};

}  // namespace epo

#endif  // EPO_SERVER_STREAM_REGISTRY_H_
