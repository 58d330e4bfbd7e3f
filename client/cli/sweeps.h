// What the commands that take a job do with a sweep.
#ifndef EPO_CLIENT_CLI_SWEEPS_H_
#define EPO_CLIENT_CLI_SWEEPS_H_

#include <string>

#include "client/cli/command.h"
#include "client/cli/follow.h"
#include "epo/v1/sweep.pb.h"

namespace epo::cli {

// Whether the sweep has not ended.
bool IsPending(const v1::Sweep& sweep);
// The exit code that tells how a followed sweep stands.
int ExitCodeOf(v1::Sweep::State state);

// Each does what the command of its name does and returns the exit code.
int GetSweep(Session& session, const std::string& id);
int CancelSweep(Session& session, const std::string& id);
int DeleteSweep(Session& session, const std::string& id);
int FollowSweep(Session& session, const std::string& id, FollowMode mode);
// All frontiers as one table, a point a row.
int ShowSweepFrontier(Session& session, const std::string& id, bool full);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_SWEEPS_H_
