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
// is PAUSED, to be held as before. A job of another model, or one whose spec this server does not
// accept, becomes FAILED. Returns how many are live.
absl::StatusOr<int> RecoverJobs(const Converter& converter, Store& store, JobFeeds& feeds,
                                Scheduler& scheduler);

}  // namespace epo

#endif  // EPO_SERVER_RECOVER_H_
