// A first population out of another job's frontier.
#ifndef EPO_SERVER_INITIAL_JOB_H_
#define EPO_SERVER_INITIAL_JOB_H_

#include "absl/status/status.h"
#include "epo/v1/service.pb.h"
#include "server/call_context.h"
#include "server/limits.h"
#include "server/store.h"

namespace epo {

// Puts the frontier of `request.spec.initial_job`, if that is given, in its place as
// initial_prompts: one a slot, from the smallest cross-entropy to the largest, repeated where the
// frontier has fewer points than there are slots, evenly chosen where it has more. INVALID_ARGUMENT
// when there is no such job that the caller may know of, or none whose frontier would do.
absl::Status TakeInitialJob(const Store& store, const CallContext& context, const Limits& limits,
                            const std::string& model_fingerprint, v1::CreateJobRequest& request);

}  // namespace epo

#endif  // EPO_SERVER_INITIAL_JOB_H_
