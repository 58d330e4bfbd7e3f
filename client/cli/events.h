// What a follower of a job waits for: the stream's messages and the user's signals, in one queue.
#ifndef EPO_CLIENT_CLI_EVENTS_H_
#define EPO_CLIENT_CLI_EVENTS_H_

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>
#include <grpcpp/support/status.h>
#include <signal.h>

#include <deque>
#include <optional>
#include <thread>
#include <variant>

#include "epo/v1/service.pb.h"

namespace epo::cli {

// The stream `stream` ended.
struct StreamEnd {
  int stream;
  grpc::Status status;
};

// A message of the stream `stream`.
struct StreamMessage {
  int stream;
  v1::WatchJobResponse response;
};

struct Signal {
  int number;
};

using Event = std::variant<StreamMessage, StreamEnd, Signal>;

// Safe from all threads.
class EventQueue {
 public:
  // Adds an event. A message waits while the queue is full, so that a fast stream does not outgrow
  // memory; false, and not added, once its stream was closed.
  bool Push(Event event);
  // The next event, or none by `deadline`.
  std::optional<Event> Pop(absl::Time deadline);
  // Forgets the streams up to and including `stream`: their events are dropped and their Push()
  // fails.
  void Close(int stream);

 private:
  bool CanPush(const Event& event) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
  int closed_ ABSL_GUARDED_BY(mutex_) = 0;
};

// While it lives, SIGINT, SIGTERM, SIGTSTP and SIGWINCH come as events instead of acting on the
// process. To be made before any other thread is, since threads inherit what they block.
class SignalEvents {
 public:
  explicit SignalEvents(EventQueue& queue);
  ~SignalEvents();
  SignalEvents(const SignalEvents&) = delete;
  SignalEvents& operator=(const SignalEvents&) = delete;

 private:
  sigset_t signals_;
  sigset_t before_;
  std::thread thread_;
};

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_EVENTS_H_
