// Counts calls, whatever they do and however they end.
#ifndef EPO_SERVER_RPC_METER_H_
#define EPO_SERVER_RPC_METER_H_

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <vector>

#include "server/metrics.h"

namespace epo {

// For grpc::ServerBuilder: an interceptor that counts each call in `metrics`, which must outlive
// the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeRpcMeter(
    Metrics& metrics);

}  // namespace epo

#endif  // EPO_SERVER_RPC_METER_H_
