// A connection to one epo-server.
#ifndef EPO_CLIENT_CLI_CLIENT_H_
#define EPO_CLIENT_CLI_CLIENT_H_

#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <string>

#include "client/cli/credentials.h"
#include "epo/v1/service.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace epo::cli {

// Safe from several threads.
class Client {
 public:
  using Stub = v1::EpoService::Stub;

  // Connects to nothing yet. `server` is HOST:PORT or another gRPC target.
  explicit Client(std::string server, Credentials credentials = {});

  const std::string& server() const { return server_; }
  Stub& stub() { return *stub_; }

  // Puts the API key, if there is one, on a call that is about to start.
  void Authorize(grpc::ClientContext& context) const;

  // OK once there is a connection or the server refused one, so that a call goes through or says
  // why at once; UNAVAILABLE after 5 s without an answer; CANCELLED soon after `stop` became true.
  grpc::Status Connect(const std::atomic<bool>& stop = kNever);

  // One unary call, on a connection made if there is none. DEADLINE_EXCEEDED after `timeout`.
  template <typename Request, typename Reply>
  grpc::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                    const Request& request, Reply* reply,
                    absl::Duration timeout = absl::Seconds(30)) {
    return Call(*stub_, method, request, reply, timeout);
  }

  // The same for a request whose id makes a repeat harmless: asked again, a second later, when it
  // is unknown whether the server heard.
  template <typename Request, typename Reply>
  grpc::Status CallTwice(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                         const Request& request, Reply* reply,
                         absl::Duration timeout = absl::Seconds(30)) {
    grpc::Status status = Call(method, request, reply, timeout);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return status;
    absl::SleepFor(absl::Seconds(1));
    return Call(method, request, reply, timeout);
  }

  // grpc.health.v1 of `service`; "" for the server as a whole. NOT_FOUND for a service that the
  // server does not know, DEADLINE_EXCEEDED after 5 s.
  grpc::Status CheckHealth(const std::string& service,
                           grpc::health::v1::HealthCheckResponse* response);

 private:
  template <typename AnyStub, typename Request, typename Reply>
  grpc::Status Call(AnyStub& stub,
                    grpc::Status (AnyStub::*method)(grpc::ClientContext*, const Request&, Reply*),
                    const Request& request, Reply* reply, absl::Duration timeout) {
    if (grpc::Status status = Connect(); !status.ok()) return status;
    grpc::ClientContext context;
    Authorize(context);
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    return (stub.*method)(&context, request, reply);
  }

  static const std::atomic<bool> kNever;

  std::string server_;
  Credentials credentials_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_CLIENT_H_
