// Following a sweep on the user's terminal.
#ifndef EPO_CLIENT_CLI_SWEEP_FOLLOW_H_
#define EPO_CLIENT_CLI_SWEEP_FOLLOW_H_

#include "client/cli/command.h"
#include "client/cli/events.h"
#include "client/cli/follow.h"
#include "epo/v1/sweep.pb.h"

namespace epo::cli {

// To be made before the session's first use of its client, since it blocks signals.
class SweepFollow {
 public:
  SweepFollow(Session& session, FollowMode mode)
      : session_(session), mode_(mode), signals_(events_) {}

  // Looks at the sweep once a second until it has ended, shows its result on stdout (kWatch: the
  // table of its frontiers, or with -o jsonl each change of it; else the sweep) and returns the
  // exit code. Ctrl-C leaves the sweep running and says how to come back.
  int Run(const v1::Sweep& sweep);

 private:
  Session& session_;
  const FollowMode mode_;
  EventQueue events_;
  SignalEvents signals_;
};

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_SWEEP_FOLLOW_H_
