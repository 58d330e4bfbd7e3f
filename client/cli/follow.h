// Following a job on the user's terminal: live display, plain lines or a line of JSON an update.
#ifndef EPO_CLIENT_CLI_FOLLOW_H_
#define EPO_CLIENT_CLI_FOLLOW_H_

#include <cstdint>
#include <string>

#include "client/cli/command.h"
#include "client/cli/events.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

enum class FollowMode {
  // Every step is shown; the result is the frontier, or with -o json the job, with -o jsonl each
  // update.
  kWatch,
  // Only how far the job is; the result is the job.
  kWait,
};

// To be made before the session's first use of its client, since it blocks signals.
class Follow {
 public:
  // `latest`: show the newest step when there is no time for every one.
  Follow(Session& session, FollowMode mode, bool latest = false)
      : session_(session), mode_(mode), latest_(latest), signals_(events_) {}

  // Follows the job from after an update until it ends, shows its result on stdout and returns the
  // exit code. Ctrl-C leaves the job running and says how to come back.
  int Run(const v1::Job& job, int64_t after_sequence);

 private:
  Session& session_;
  const FollowMode mode_;
  const bool latest_;
  EventQueue events_;
  SignalEvents signals_;
};

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_FOLLOW_H_
