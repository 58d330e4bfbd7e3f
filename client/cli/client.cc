#include "client/cli/client.h"

#include <absl/time/clock.h>

#include <string_view>
#include <utility>

namespace epo::cli {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
// A history's iteration grows with population x children x tokens; what the server made, the client
// takes.
constexpr int kMaxMessageBytes = 1 << 30;

bool IsLoopback(std::string_view server) {
  for (const std::string_view start : {"127.", "localhost", "[::1]", "unix:"}) {
    if (server.substr(0, start.size()) == start) return true;
  }
  return false;
}

grpc::ChannelArguments Arguments(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // The watch has a backoff of its own; the channel must be ready to connect whenever it asks.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // An http_proxy for the internet does not lead to this machine.
  if (IsLoopback(server)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

}  // namespace

Client::Client(std::string server)
    : server_(std::move(server)),
      channel_(grpc::CreateCustomChannel(server_, grpc::InsecureChannelCredentials(),
                                         Arguments(server_))),
      stub_(v1::EpoService::NewStub(channel_)) {}

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
