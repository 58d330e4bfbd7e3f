// A server-streaming call that reads what it sends in batches from a source that may be slow.
#ifndef EPO_SERVER_STREAM_REACTOR_H_
#define EPO_SERVER_STREAM_REACTOR_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/status.h"
#include "server/stream_registry.h"
#include "server/worker_pool.h"

namespace epo {

// Owns itself from Start() until gRPC is done with it. Holds one batch at most, so a client that
// stops reading costs a bounded amount of memory; it writes one message at a time and never waits,
// so it costs no thread. Finish() is called once, with no write outstanding: after a cancellation
// the outstanding write fails first.
template <class Message>
class StreamReactor : public grpc::ServerWriteReactor<Message>, public Stream {
 public:
  StreamReactor(WorkerPool& pool, StreamRegistry& registry) : pool_(pool), registry_(registry) {}

  // Called once, right after construction by make_shared.
  void Start() {
    self_ = shared_from_this();
    registry_.Add(self_);
    Wake();
  }

  // Asks for another Fetch().
  void Wake() {
    absl::MutexLock lock(&mutex_);
    wanted_ = true;
    Advance();
  }

  void Drain(const grpc::Status& status) final {
    absl::MutexLock lock(&mutex_);
    // One that has its end in hand delivers it.
    if (!closing_.has_value()) Close(status);
    Advance();
  }

  void Tick(absl::Time now) final {
    absl::MutexLock lock(&mutex_);
    if (writing_ || !pending_.empty() || now - last_write_ < kHeartbeatPeriod) return;
    heartbeat_due_ = true;
    wanted_ = true;
    Advance();
  }

 protected:
  using MessagePtr = std::shared_ptr<const Message>;

  struct Batch {
    std::vector<MessagePtr> messages;
    enum class Then {
      kFetch,   // fetch again once these are written
      kWait,    // fetch again after Wake()
      kFinish,  // the stream ends with OK
    } then;
  };
  // The next messages. Runs on the pool, never concurrently with itself.
  virtual absl::StatusOr<Batch> Fetch() = 0;
  // What to send when nothing was for a while; null for nothing. Runs like Fetch().
  virtual MessagePtr Heartbeat() { return nullptr; }
  // The call is over; no Fetch() starts any more, though one may be running.
  virtual void Ended() {}

 private:
  static constexpr absl::Duration kHeartbeatPeriod = absl::Seconds(15);

  void OnWriteDone(bool ok) final {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    current_.reset();
    if (!ok) Close(grpc::Status::CANCELLED);
    Advance();
  }

  void OnCancel() final {
    absl::MutexLock lock(&mutex_);
    Close(grpc::Status::CANCELLED);
    Advance();
  }

  void OnDone() final {
    registry_.Remove(this);
    Ended();
    // Keeps this alive to the end of the function.
    const std::shared_ptr<Stream> self = std::move(self_);
  }

  void Close(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    pending_.clear();
    if (!closing_.has_value()) closing_ = status;
  }

  // Does what the state allows: at most one write and one fetch are under way. gRPC runs no
  // reaction inside StartWrite() or Finish(), so calling them under the lock is safe.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_ || writing_) return;
    if (!pending_.empty()) {
      current_ = std::move(pending_.front());
      pending_.pop_front();
      writing_ = true;
      last_write_ = absl::Now();
      this->StartWrite(current_.get());
      return;
    }
    if (closing_.has_value()) {
      finished_ = true;
      this->Finish(*closing_);
      return;
    }
    if (!wanted_ || fetching_) return;
    wanted_ = false;
    fetching_ = true;
    const bool heartbeat = std::exchange(heartbeat_due_, false);
    pool_.Post([this, self = shared_from_this(), heartbeat] { RunFetch(heartbeat); });
  }

  void RunFetch(bool heartbeat) {
    absl::StatusOr<Batch> batch = Fetch();
    if (heartbeat && batch.ok() && batch->messages.empty()) {
      if (MessagePtr message = Heartbeat()) batch->messages.push_back(std::move(message));
    }
    absl::MutexLock lock(&mutex_);
    fetching_ = false;
    if (closing_.has_value()) {
      // Drained or cancelled meanwhile.
    } else if (!batch.ok()) {
      Close(ToGrpcStatus(batch.status()));
    } else {
      for (MessagePtr& message : batch->messages) pending_.push_back(std::move(message));
      if (batch->then == Batch::Then::kFetch) wanted_ = true;
      if (batch->then == Batch::Then::kFinish) closing_ = grpc::Status::OK;
    }
    Advance();
  }

  WorkerPool& pool_;
  StreamRegistry& registry_;
  std::shared_ptr<Stream> self_;

  absl::Mutex mutex_;
  std::deque<MessagePtr> pending_ ABSL_GUARDED_BY(mutex_);
  // The message being written.
  MessagePtr current_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool fetching_ ABSL_GUARDED_BY(mutex_) = false;
  // Another fetch is due.
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool heartbeat_due_ ABSL_GUARDED_BY(mutex_) = false;
  // The status to finish with once `pending_` is written.
  std::optional<grpc::Status> closing_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  // No heartbeat before the first message.
  absl::Time last_write_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace epo

#endif  // EPO_SERVER_STREAM_REACTOR_H_
