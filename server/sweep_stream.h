// The streaming call of sweeps: GetSweepFrontier.
#ifndef EPO_SERVER_SWEEP_STREAM_H_
#define EPO_SERVER_SWEEP_STREAM_H_

#include "server/streams.h"

namespace epo {

// As WatchJob() and GetHistory().
grpc::ServerWriteReactor<v1::ObjectiveFrontier>* GetSweepFrontier(
    const StreamSources& sources, const CallContext& context,
    const v1::GetSweepFrontierRequest& request);

}  // namespace epo

#endif  // EPO_SERVER_SWEEP_STREAM_H_
