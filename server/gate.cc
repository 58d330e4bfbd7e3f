#include "server/gate.h"

#include <grpc/grpc.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "server/log.h"
#include "server/status.h"

namespace epo {
namespace {

constexpr double kLogLinesPerSecond = 1;
constexpr double kLogBurst = 10;
constexpr absl::Duration kStreamRetry = absl::Seconds(1);
constexpr char kReflection[] = "/grpc.reflection.";

const char* RoleName(Role role) {
  switch (role) {
    case Role::kRead:
      return "read";
    case Role::kSubmit:
      return "submit";
    case Role::kAdmin:
      break;
  }
  return "admin";
}

std::string WithoutPort(std::string peer) {
  if (const size_t colon = peer.rfind(':'); colon != std::string::npos) peer.resize(colon);
  return peer;
}

// Whom limits count: no client's name holds a colon, and every address does.
const std::string& Subject(const CallContext& context) {
  return context.client.empty() ? context.peer : context.client;
}

// `limit` is what the client is over, in words.
absl::Status OverLimit(const CallContext& context, const std::string& over, int limit,
                       const char* reason, absl::Duration retry) {
  return WithRetry(
      MakeError(absl::StatusCode::kResourceExhausted,
                absl::StrCat("client ", Subject(context), " ", over, " ", limit, "; try again in ",
                             absl::FormatDuration(absl::Ceil(retry, absl::Milliseconds(1)))),
                reason, {{"client", Subject(context)}, {"limit", absl::StrCat(limit)}}),
      retry);
}

}  // namespace

Gate::Gate(const ApiKeys* keys, const Limits& limits)
    : keys_(keys),
      limits_(limits),
      calls_(limits.calls_per_second_per_client, 2.0 * limits.calls_per_second_per_client),
      log_bucket_(kLogLinesPerSecond, kLogBurst) {}

absl::Status Gate::Authenticate(const grpc::ServerContextBase& call, CallContext& context) const {
  if (keys_ == nullptr) return absl::OkStatus();
  context.role = Role::kRead;
  const auto [begin, end] = call.client_metadata().equal_range("authorization");
  if (begin == end) {
    return MakeError(absl::StatusCode::kUnauthenticated,
                     "this server wants an API key, as the metadata \"authorization: Bearer KEY\" "
                     "(epo: EPO_API_KEY or --api-key-file)",
                     "NO_API_KEY");
  }
  absl::string_view key(begin->second.data(), begin->second.size());
  std::shared_ptr<const ApiKey> found;
  if (std::next(begin) == end && absl::StartsWithIgnoreCase(key, "bearer ")) {
    key.remove_prefix(sizeof("bearer ") - 1);
    found = keys_->Find({key.data(), key.size()});
  }
  if (found == nullptr) {
    return MakeError(absl::StatusCode::kUnauthenticated,
                     "the API key is not one of this server's; ask its operator for another",
                     "UNKNOWN_API_KEY");
  }
  context.client = found->client;
  context.role = found->role;
  return absl::OkStatus();
}

absl::StatusOr<CallContext> Gate::Admit(const grpc::ServerContextBase& call,
                                        std::string_view method, Role role) {
  CallContext context;
  context.peer = WithoutPort(call.peer());
  absl::Status status = Authenticate(call, context);
  const absl::Duration wait = calls_.Take(Subject(context), absl::Now());
  if (wait > absl::ZeroDuration()) {
    return OverLimit(context, "makes more calls a second than", limits_.calls_per_second_per_client,
                     "TOO_MANY_CALLS", wait);
  }
  if (status.ok() && context.role < role) {
    const std::string name(method);
    status = MakeError(absl::StatusCode::kPermissionDenied,
                       absl::StrCat("the API key of ", context.client, " has no role for ", name,
                                    "; it needs the role ", RoleName(role)),
                       "ROLE_MISSING",
                       {{"client", context.client}, {"method", name}, {"role", RoleName(role)}});
  }
  if (!status.ok()) {
    LogRefusal(method, context, status);
    return status;
  }
  return context;
}

absl::StatusOr<CallContext> Gate::AdmitStream(const grpc::ServerContextBase& call,
                                              std::string_view method, Role role) {
  absl::StatusOr<CallContext> context = Admit(call, method, role);
  if (!context.ok()) return context;
  absl::StatusOr<std::shared_ptr<void>> permit = OpenStream(*context);
  if (!permit.ok()) return permit.status();
  context->permit = *std::move(permit);
  return context;
}

absl::StatusOr<std::shared_ptr<void>> Gate::OpenStream(const CallContext& context) {
  {
    absl::MutexLock lock(&streams_->mutex);
    int& open = streams_->by_client[Subject(context)];
    if (open >= limits_.streams_per_client) {
      return OverLimit(context, "has as many watches and histories open as it may,",
                       limits_.streams_per_client, "TOO_MANY_STREAMS", kStreamRetry);
    }
    ++open;
  }
  return std::shared_ptr<void>(nullptr, [streams = streams_, client = Subject(context)](void*) {
    absl::MutexLock lock(&streams->mutex);
    const auto open = streams->by_client.find(client);
    if (--open->second == 0) streams->by_client.erase(open);
  });
}

void Gate::LogRefusal(std::string_view method, const CallContext& context,
                      const absl::Status& why) {
  absl::MutexLock lock(&log_mutex_);
  if (log_bucket_.Take(absl::Now()) > absl::ZeroDuration()) {
    ++unlogged_;
    return;
  }
  const LogScope scope({.client = context.client});
  spdlog::warn("{} refused, from {}: {}{}", method, context.peer, Describe(why),
               unlogged_ == 0 ? "" : absl::StrCat("; ", unlogged_, " more refusals before"));
  unlogged_ = 0;
}

namespace {

class ReflectionGuard final : public grpc::experimental::Interceptor {
 public:
  ReflectionGuard(Gate& gate, grpc::ServerContextBase& call) : gate_(gate), call_(call) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      const absl::StatusOr<CallContext> admitted =
          gate_.Admit(call_, "ServerReflectionInfo", Role::kRead);
      if (!admitted.ok()) {
        // Interceptors cannot refuse a call; this ends it with a status, where TryCancel() has none
        // to choose.
        const grpc::Status status = ToGrpcStatus(admitted.status());
        grpc_call_cancel_with_status(call_.c_call(),
                                     static_cast<grpc_status_code>(status.error_code()),
                                     status.error_message().c_str(), nullptr);
      }
    }
    methods->Proceed();
  }

 private:
  Gate& gate_;
  grpc::ServerContextBase& call_;
};

class ReflectionGuardFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit ReflectionGuardFactory(Gate& gate) : gate_(gate) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    if (!absl::StartsWith(info->method(), kReflection)) return nullptr;
    return new ReflectionGuard(gate_, *info->server_context());
  }

 private:
  Gate& gate_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeReflectionGuard(
    Gate& gate) {
  return std::make_unique<ReflectionGuardFactory>(gate);
}

}  // namespace epo
