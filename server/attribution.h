// Attribute: the streaming call, and what it asks of the model's thread.
#ifndef EPO_SERVER_ATTRIBUTION_H_
#define EPO_SERVER_ATTRIBUTION_H_

#include <grpcpp/support/server_callback.h>

#include "epo/v1/service.pb.h"
#include "server/call_context.h"
#include "server/convert.h"
#include "server/limits.h"
#include "server/scheduler.h"
#include "server/store.h"
#include "server/stream_registry.h"
#include "server/worker_pool.h"

namespace epo {

// What the call needs; all of it must outlive the streams.
struct AttributionSources {
  const Converter& converter;
  const Store& store;
  const Limits& limits;
  Scheduler& scheduler;
  WorkerPool& pool;
  StreamRegistry& registry;
};

// Makes the reactor of one call, which owns itself. INVALID_ARGUMENT names every bad field; a job
// of another client is NOT_FOUND.
grpc::ServerWriteReactor<v1::AttributeResponse>* Attribute(const AttributionSources& sources,
                                                           const CallContext& context,
                                                           const v1::AttributeRequest& request);

}  // namespace epo

#endif  // EPO_SERVER_ATTRIBUTION_H_
