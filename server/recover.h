// What a server does with the jobs that the last process left unfinished.
#ifndef EPO_SERVER_RECOVER_H_
#define EPO_SERVER_RECOVER_H_

#include "absl/status/statusor.h"
#include "server/convert.h"
#include "server/feed.h"
#include "server/scheduler.h"
#include "server/store.h"

namespace epo {

// Hands every unfinished job in the store to `scheduler`, to continue from its checkpoint or, if it
// is PAUSED or of another model, to be held. A job that was at work when the last process died has
// one crash more; the `max_attempts`th makes it FAILED, as does a spec that this server does not
// accept. What the store refuses for want of room, or for now, the scheduler writes later. Returns
// how many are live.
absl::StatusOr<int> RecoverJobs(const Converter& converter, Store& store, JobFeeds& feeds,
                                Scheduler& scheduler, int max_attempts);

}  // namespace epo

#endif  // EPO_SERVER_RECOVER_H_
