// What the world asks of the model's thread.
#ifndef EPO_SERVER_MAILBOX_H_
#define EPO_SERVER_MAILBOX_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/live_job.h"
#include "server/model_calls.h"
#include "server/scheduler.h"

namespace epo {

// What came since the model's thread last looked.
struct Mail {
  enum class Wish { kCancel, kPause, kResume };
  struct Request {
    Wish wish;
    std::string id;
    JobDone done;
  };
  struct SweepRequest {
    std::string id;
    Scheduler::SweepDone done;
  };
  std::vector<std::unique_ptr<LiveJob>> submitted;
  std::vector<Request> requests;
  std::vector<SweepRequest> cancelled_sweeps;
  std::vector<std::unique_ptr<ModelCall>> calls;
  // Nothing comes any more.
  bool stop = false;

  bool empty() const {
    return submitted.empty() && requests.empty() && cancelled_sweeps.empty() && calls.empty() &&
           !stop;
  }
};

// Once it is closed, whoever asks is answered that the server shuts down, by the asking thread.
// Thread-safe.
class Mailbox {
 public:
  // `max_calls`: how many calls may be waiting or under way.
  explicit Mailbox(int max_calls) : max_calls_(max_calls) {}

  // Jobs that come too late are dropped: they are in the store, from where the next server
  // continues them.
  void Post(std::vector<std::unique_ptr<LiveJob>> lives) ABSL_LOCKS_EXCLUDED(mutex_);
  void Post(Mail::Request request) ABSL_LOCKS_EXCLUDED(mutex_);
  void Post(Mail::SweepRequest request) ABSL_LOCKS_EXCLUDED(mutex_);
  // Fails the call with RESOURCE_EXHAUSTED and RetryInfo when there are too many.
  void Post(std::unique_ptr<ModelCall> call) ABSL_LOCKS_EXCLUDED(mutex_);
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  // What there is, as soon as there is something, at `deadline` at the latest.
  Mail Take(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // So many calls are answered.
  void ReleaseCalls(int count) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  bool HasMail() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !mail_.empty(); }

  const int max_calls_;
  absl::Mutex mutex_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  // Accepted and not answered.
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_MAILBOX_H_
