#include "client/cli/client.h"

#include <absl/time/clock.h>

#include <utility>

namespace epo::cli {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
constexpr absl::Duration kHealthTimeout = absl::Seconds(5);
// A history's iteration grows with population x children x tokens; what the server made, the client
// takes.
constexpr int kMaxMessageBytes = 1 << 30;

grpc::ChannelArguments Arguments(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // The watch has a backoff of its own; the channel must be ready to connect whenever it asks.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // An http_proxy for the internet does not lead to this machine.
  if (IsLocal(server)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const Credentials& credentials) {
  if (!credentials.tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = credentials.ca;
  options.pem_cert_chain = credentials.certificate;
  options.pem_private_key = credentials.key;
  return grpc::SslCredentials(options);
}

}  // namespace

Client::Client(std::string server, Credentials credentials)
    : server_(std::move(server)),
      credentials_(std::move(credentials)),
      channel_(
          grpc::CreateCustomChannel(server_, ChannelCredentials(credentials_), Arguments(server_))),
      stub_(v1::EpoService::NewStub(channel_)),
      health_(grpc::health::v1::Health::NewStub(channel_)) {}

void Client::Authorize(grpc::ClientContext& context) const {
  // Not as gRPC's call credentials, which want TLS even where a connection leaves no machine.
  if (credentials_.api_key.empty()) return;
  context.AddMetadata("authorization", "Bearer " + credentials_.api_key);
}

grpc::Status Client::CheckHealth(const std::string& service,
                                 grpc::health::v1::HealthCheckResponse* response) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  return Call(*health_, &grpc::health::v1::Health::Stub::Check, request, response, kHealthTimeout);
}

const std::atomic<bool> Client::kNever = false;

grpc::Status Client::Connect(const std::atomic<bool>& stop) {
  const absl::Time deadline = absl::Now() + kConnectTimeout;
  while (absl::Now() < deadline) {
    if (stop) return grpc::Status::CANCELLED;
    const grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE) {
      return grpc::Status::OK;
    }
    channel_->WaitForStateChange(state, absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
  }
  return {grpc::StatusCode::UNAVAILABLE, "no answer within 5 s"};
}

}  // namespace epo::cli
