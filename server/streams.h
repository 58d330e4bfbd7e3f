// The streaming calls: WatchJob and GetHistory.
#ifndef EPO_SERVER_STREAMS_H_
#define EPO_SERVER_STREAMS_H_

#include <grpcpp/support/server_callback.h>

#include <functional>

#include "epo/v1/service.pb.h"
#include "server/call_context.h"
#include "server/convert.h"
#include "server/feed.h"
#include "server/metrics.h"
#include "server/store.h"
#include "server/stream_registry.h"
#include "server/worker_pool.h"

namespace epo {

// What streams read from; all of it must outlive them.
struct StreamSources {
  Store& store;
  JobFeeds& feeds;
  WorkerPool& pool;
  StreamRegistry& registry;
  Metrics& metrics;
  // Fills in what of a stored job only the scheduler knows.
  std::function<void(v1::Job&)> describe;
  // There is one once there are streams.
  std::function<const Converter&()> converter;
};

// Each makes the reactor of one call, which owns itself. The arguments are read before they return.
// A job of another client is NOT_FOUND.
grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(const StreamSources& sources,
                                                         const CallContext& context,
                                                         const v1::WatchJobRequest& request);
grpc::ServerWriteReactor<v1::Iteration>* GetHistory(const StreamSources& sources,
                                                    const CallContext& context,
                                                    const v1::GetHistoryRequest& request);

}  // namespace epo

#endif  // EPO_SERVER_STREAMS_H_
