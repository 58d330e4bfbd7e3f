// Who may call, what, and how often.
#ifndef EPO_SERVER_GATE_H_
#define EPO_SERVER_GATE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_interceptor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/api_keys.h"
#include "server/call_context.h"
#include "server/limits.h"
#include "server/rate_limit.h"

namespace epo {

// Thread-safe; returns at once. Refused keys and roles go to the log, at most about one line a
// second.
class Gate {
 public:
  // `keys`, which must outlive the gate, may be null: everybody is then an admin without a name.
  Gate(const ApiKeys* keys, const Limits& limits);

  // UNAUTHENTICATED without a known key in the metadata "authorization: Bearer KEY",
  // PERMISSION_DENIED when its role does not include `role`, RESOURCE_EXHAUSTED with RetryInfo when
  // the client calls too often. `method` is for messages.
  absl::StatusOr<CallContext> Admit(const grpc::ServerContextBase& call, std::string_view method,
                                    Role role);
  // The same for a stream; RESOURCE_EXHAUSTED with RetryInfo also when the client has too many
  // open.
  absl::StatusOr<CallContext> AdmitStream(const grpc::ServerContextBase& call,
                                          std::string_view method, Role role);

 private:
  struct OpenStreams {
    absl::Mutex mutex;
    absl::flat_hash_map<std::string, int> by_client ABSL_GUARDED_BY(mutex);
  };

  absl::Status Authenticate(const grpc::ServerContextBase& call, CallContext& context) const;
  absl::StatusOr<std::shared_ptr<void>> OpenStream(const CallContext& context);
  void LogRefusal(std::string_view method, const CallContext& context, const absl::Status& why);

  const ApiKeys* const keys_;
  const Limits limits_;
  RateLimiter calls_;
  // Permits may outlive the gate.
  const std::shared_ptr<OpenStreams> streams_ = std::make_shared<OpenStreams>();

  absl::Mutex log_mutex_;
  TokenBucket log_bucket_ ABSL_GUARDED_BY(log_mutex_);
  int64_t unlogged_ ABSL_GUARDED_BY(log_mutex_) = 0;
};

// Puts `gate`, which must outlive the server, before gRPC's reflection service, which knows of no
// keys. A refused call ends with the status's code and message, without details.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeReflectionGuard(
    Gate& gate);

}  // namespace epo

#endif  // EPO_SERVER_GATE_H_
