// Following a job over connections that may break.
#ifndef EPO_CLIENT_CLI_WATCH_H_
#define EPO_CLIENT_CLI_WATCH_H_

#include <absl/time/time.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>

#include "client/cli/client.h"
#include "client/cli/events.h"
#include "epo/v1/service.pb.h"

namespace epo::cli {

// Told what a watch brings, on the thread that called Watch().
class Watcher {
 public:
  virtual ~Watcher() = default;
  // The job as a stream found it: at the start and after each reconnection.
  virtual void OnFound(const v1::Job& job) = 0;
  // A step or the ended job, each once and in the order of their sequence numbers.
  virtual void OnUpdate(const v1::WatchJobResponse& update) = 0;
  // The job as the server says it is now, between updates.
  virtual void OnState(const v1::Job& job) = 0;
  // The connection broke at `since`, or a further attempt failed; another one follows.
  virtual void OnLost(const grpc::Status& status, absl::Time since) = 0;
  // Nothing happened for about 0.1 s.
  virtual void OnIdle() = 0;
  // SIGWINCH, or SIGTSTP.
  virtual void OnSignal(int number) = 0;
};

struct WatchOptions {
  // Updates up to this sequence number are known already.
  int64_t after_sequence = 0;
  // Whether updates between may be left out in favour of the newest.
  bool latest = false;
  // Whether the server is known to be there, so that even a first connection is tried again.
  bool reached = false;
  // Without a message for so long after a connection broke, the watch gives up. A server that
  // restarts may take minutes to load its model.
  absl::Duration give_up_after = absl::Minutes(10);
  // Waits double from the first to the longest; each is cut by up to a half at random, so that the
  // watchers of a server that restarts do not all come at once.
  absl::Duration first_backoff = absl::Milliseconds(250);
  absl::Duration longest_backoff = absl::Seconds(4);
};

struct WatchResult {
  enum Kind { kEnded, kDetached, kError };
  Kind kind = kError;
  // The ended job.
  v1::Job job;
  // Why the watch could not go on.
  grpc::Status status;
};

// Follows the job to its end, until SIGINT or SIGTERM comes through `events` (kDetached), or until
// an error. A connection that breaks, a server that asks for patience, or a stream that leaves
// updates out is taken up again after the last update seen; a server that was never reached is an
// error at once.
WatchResult Watch(Client& client, const std::string& id, const WatchOptions& options,
                  EventQueue& events, Watcher& watcher);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_WATCH_H_
