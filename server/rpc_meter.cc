#include "server/rpc_meter.h"

#include <grpcpp/support/interceptor.h>

#include <chrono>

namespace epo {
namespace {

using grpc::experimental::InterceptionHookPoints;

class RpcMeter final : public grpc::experimental::Interceptor {
 public:
  RpcMeter(Metrics& metrics, const grpc::experimental::ServerRpcInfo& rpc)
      : metrics_(metrics), method_(metrics.RpcStarted(rpc.method())) {}

  // A call whose client went away before there was a status ends here.
  ~RpcMeter() override {
    if (!ended_) End(grpc::StatusCode::CANCELLED);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) {
      metrics_.RpcSentMessage(method_);
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS) && !ended_) {
      End(batch->GetSendStatus().error_code());
    }
    batch->Proceed();
  }

 private:
  void End(grpc::StatusCode code) {
    ended_ = true;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    metrics_.RpcEnded(method_, code, seconds.count());
  }

  Metrics& metrics_;
  const Metrics::Method method_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool ended_ = false;
};

class RpcMeterFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcMeterFactory(Metrics& metrics) : metrics_(metrics) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* rpc) override {
    return new RpcMeter(metrics_, *rpc);
  }

 private:
  Metrics& metrics_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeRpcMeter(
    Metrics& metrics) {
  return std::make_unique<RpcMeterFactory>(metrics);
}

}  // namespace epo
