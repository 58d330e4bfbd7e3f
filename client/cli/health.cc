#include <absl/strings/str_cat.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/output.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

using grpc::health::v1::HealthCheckResponse;

// The server's name for its store: NOT_SERVING while the disk takes no writes, although the server
// itself goes on.
constexpr char kStore[] = "epo.v1.EpoService/store";

int Health(Session& session) {
  HealthCheckResponse server;
  if (const grpc::Status status = session.client().CheckHealth("", &server); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  const bool serving = server.status() == HealthCheckResponse::SERVING;
  HealthCheckResponse store;
  // Only then the answer is the store's own.
  if (serving) {
    const grpc::Status status = session.client().CheckHealth(kStore, &store);
    if (!status.ok() && status.error_code() != grpc::StatusCode::NOT_FOUND) {
      return ReportError(status, session.settings().server);
    }
  }
  const auto name = [](const HealthCheckResponse& response) {
    return HealthCheckResponse::ServingStatus_Name(response.status());
  };
  if (session.table()) {
    Print(absl::StrCat("server  ", name(server), "\nstore   ", name(store), "\n"));
  } else {
    PrintValue({{"server", name(server)}, {"store", name(store)}}, session.settings().format);
  }
  if (serving) return kDone;
  std::fprintf(stderr, "epo: the server at %s does not serve: it loads its model, or is stopping\n",
               Escape(session.settings().server).c_str());
  return static_cast<int>(kRpcError) + static_cast<int>(grpc::StatusCode::UNAVAILABLE);
}

}  // namespace

void AddHealth(Commands& commands) {
  commands.Add("health", "Show whether the server serves; the exit code is 0 only then",
               "Example: epo health && epo submit --layer 8 --neuron 1", Health);
}

}  // namespace epo::cli
