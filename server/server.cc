#include "server/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <netdb.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/evaluate/evaluator.h"
#include "core/model/model.h"
#include "server/api.h"
#include "server/convert.h"
#include "server/feed.h"
#include "server/recover.h"
#include "server/scheduler.h"
#include "server/service.h"
#include "server/status.h"
#include "server/store.h"
#include "server/stream_registry.h"
#include "server/worker_pool.h"

namespace epo {
namespace {

constexpr int kWorkers = 4;
constexpr int kMaxReceiveBytes = 4 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
// A connection may carry this many calls at a time, watches included.
constexpr int kMaxConcurrentStreams = 2048;
constexpr int kKeepaliveMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// A client may ping this often; gRPC's own limit of 5 minutes ends the connections of clients that
// keep theirs alive.
constexpr int kMinPingIntervalMs = 10'000;
constexpr std::chrono::seconds kDrainGrace{5};

// Two jobs with the published settings share a round where the CPU computes, which then takes
// seconds; a GPU wants many rows.
constexpr int kRoundRowsCpu = 8192;
constexpr int kRoundRowsGpu = 1 << 17;

// gRPC's own reports, which repeat what the server logs in one line.
void LogFromGrpc(gpr_log_func_args* args) {
  spdlog::debug("grpc: {} ({}:{})", args->message, args->file, args->line);
}

// Why nobody can listen on HOST:PORT, in the system's words; gRPC does not tell.
std::string WhyNotListening(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error =
          getaddrinfo(host.c_str(), listen.substr(colon + 1).c_str(), &hints, &found)) {
    return gai_strerror(error);
  }
  std::string why = "the address cannot be used";
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (fd < 0) continue;
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0) why = std::strerror(errno);
    close(fd);
  }
  freeaddrinfo(found);
  return why;
}

class ServerImpl final : public Server {
 public:
  ServerImpl(const ServerOptions& options, std::unique_ptr<Store> store)
      : options_(options),
        store_(std::move(store)),
        feeds_(pool_),
        pool_(kWorkers),
        service_(pool_, {*store_, feeds_, pool_, streams_}) {}

  ~ServerImpl() override {
    if (grpc_ != nullptr) Drain();
  }

  absl::Status Listen() {
    gpr_set_log_function(LogFromGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kMinPingIntervalMs);
    // Else a second server would share the port and take half of the calls.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    grpc_ = builder.BuildAndStart();
    if (grpc_ == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", options_.listen, ": ",
                                                        WhyNotListening(options_.listen),
                                                        "; choose another address with --listen"));
    }
    grpc_->GetHealthCheckService()->SetServingStatus(false);
    address_ = absl::StrCat(options_.listen.substr(0, options_.listen.rfind(':')), ":", port);
    return absl::OkStatus();
  }

  absl::Status Serve() override {
    spdlog::info("loading the model from {}", options_.model.string());
    const auto start = std::chrono::steady_clock::now();
    auto model = Model::Load(options_.model, {.device = options_.device, .dtype = options_.dtype});
    if (!model.ok()) return model.status();
    model_ = *std::move(model);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    spdlog::info("model {} ({}) on {} in {}, loaded in {:.1f} s", model_->name(),
                 model_->fingerprint(), model_->device(), model_->dtype(), seconds.count());

    converter_ = std::make_unique<Converter>(*model_);
    SchedulerOptions scheduling;
    scheduling.round_rows = model_->device() == "cpu" ? kRoundRowsCpu : kRoundRowsGpu;
    scheduler_ = MakeScheduler(
        *converter_, *store_, feeds_, [this] { return Evaluator::Create(*model_, {}); },
        scheduling);
    absl::StatusOr<int> recovered = RecoverJobs(*converter_, *store_, feeds_, *scheduler_);
    if (!recovered.ok()) return recovered.status();
    if (*recovered > 0) spdlog::info("{} unfinished jobs continue", *recovered);

    api_ = std::make_unique<Api>(*converter_, *store_, feeds_, *scheduler_, pool_);
    service_.Serve(*api_);
    auto* health = grpc_->GetHealthCheckService();
    health->SetServingStatus(v1::EpoService::service_full_name(), true);
    health->SetServingStatus(true);
    spdlog::info("listening on {}", address_);
    return absl::OkStatus();
  }

  void Drain() override {
    grpc_->GetHealthCheckService()->SetServingStatus(false);
    if (api_ != nullptr) api_->StartDrain();
    if (scheduler_ != nullptr) scheduler_->Stop();
    streams_.Drain(ToGrpcStatus(ShuttingDown()));
    grpc_->Shutdown(std::chrono::system_clock::now() + kDrainGrace);
    grpc_.reset();
  }

  const std::string& address() const override { return address_; }

 private:
  const ServerOptions options_;
  std::string address_;

  // Destroyed from the last to the first: calls use all that stands above them.
  std::unique_ptr<Store> store_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Converter> converter_;
  StreamRegistry streams_;
  JobFeeds feeds_;
  WorkerPool pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Api> api_;
  Service service_;
  std::unique_ptr<grpc::Server> grpc_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options.state_dir);
  if (!store.ok()) return store.status();
  auto server = std::make_unique<ServerImpl>(options, *std::move(store));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace epo
