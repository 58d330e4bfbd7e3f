#include "server/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/evaluate/evaluator.h"
#include "core/model/memory.h"
#include "core/model/model.h"
#include "server/api.h"
#include "server/convert.h"
#include "server/feed.h"
#include "server/gpu_samples.h"
#include "server/http_pages.h"
#include "server/listen_address.h"
#include "server/metered_evaluator.h"
#include "server/metered_store.h"
#include "server/metrics.h"
#include "server/recover.h"
#include "server/retention.h"
#include "server/rpc_meter.h"
#include "server/samples.h"
#include "server/scheduler.h"
#include "server/security.h"
#include "server/service.h"
#include "server/status.h"
#include "server/storage_guard.h"
#include "server/store.h"
#include "server/stream_registry.h"
#include "server/vectors.h"
#include "server/watched_store.h"
#include "server/worker_pool.h"

namespace epo {
namespace {

constexpr int kWorkers = 4;
constexpr int kKeepaliveMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// A client may ping this often; gRPC's own limit of 5 minutes ends the connections of clients that
// keep theirs alive.
constexpr int kMinPingIntervalMs = 10'000;
// What a drain leaves of its time to the streams' and calls' ends, at most half of it.
constexpr absl::Duration kDrainGrace = absl::Seconds(5);
constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr absl::Duration kWriteRetry = absl::Seconds(1);
constexpr absl::Duration kOpenRetry = absl::Seconds(1);

// A name for grpc.health: NOT_SERVING while the store refuses writes. Reads go on meanwhile, so the
// health of the service itself stays as it is.
constexpr char kStoreHealth[] = "epo.v1.EpoService/store";

// Two jobs with the published settings share a round where the CPU computes, which then takes
// seconds; a GPU wants many rows.
constexpr int kRoundRowsCpu = 8192;
constexpr int kRoundRowsGpu = 1 << 17;

// gRPC's own reports, which repeat what the server logs in one line.
void LogFromGrpc(gpr_log_func_args* args) {
  spdlog::debug("grpc: {} ({}:{})", args->message, args->file, args->line);
}

// Waits where the disk is full: the jobs in the store will go on when there is room again.
absl::StatusOr<std::unique_ptr<Store>> OpenStore(const std::filesystem::path& dir) {
  for (bool told = false;; told = true) {
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(dir);
    if (!absl::IsResourceExhausted(store.status())) return store;
    if (!told) spdlog::error("waiting for room on the disk: {}", Describe(store.status()));
    absl::SleepFor(kOpenRetry);
  }
}

class ServerImpl final : public Server {
 public:
  ServerImpl(const ServerOptions& options, std::unique_ptr<Store> store,
             std::unique_ptr<Security> security)
      : options_(options),
        security_(std::move(security)),
        store_(std::make_unique<WatchedStore>(MeterStore(std::move(store), metrics_),
                                              options.state_dir, kWriteRetry)),
        vectors_(*store_, options.limits),
        storage_(*store_, options.state_dir, options.storage),
        feeds_(pool_),
        pool_(kWorkers),
        // Streams begin once there is a scheduler.
        service_(pool_,
                 {*store_, feeds_, pool_, streams_, metrics_,
                  [this](v1::Job& job) { scheduler_->Describe(job); },
                  [this]() -> const Converter& { return *converter_; }},
                 security_->gate()) {}

  ~ServerImpl() override {
    if (grpc_ != nullptr) Drain();
  }

  absl::Status Listen() {
    gpr_set_log_function(LogFromGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options_.listen, security_->credentials(), &port);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(options_.limits.message_bytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options_.limits.metadata_bytes);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                               options_.limits.streams_per_connection);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kMinPingIntervalMs);
    // Else a second server would share the port and take half of the calls.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.experimental().SetInterceptorCreators(RpcInterceptors());
    grpc_ = builder.BuildAndStart();
    if (grpc_ == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", options_.listen, ": ",
                                                        WhyNotListening(options_.listen),
                                                        "; choose another address with --listen"));
    }
    grpc_->GetHealthCheckService()->SetServingStatus(false);
    address_ = absl::StrCat(options_.listen.substr(0, options_.listen.rfind(':')), ":", port);
    return ShowMetrics();
  }

  absl::Status ShowMetrics() {
    if (options_.metrics_listen.empty()) return absl::OkStatus();
    metrics_.AddSource(ProcessSamples);
    metrics_.AddSource([this] { return StoreSamples(*store_, options_.state_dir); });
    metrics_.AddSource([this] { return ServerSamples(pool_, serving_); });
    if (auto gpus = OpenGpuSamples()) metrics_.AddSource(std::move(gpus));
    auto pages = HttpPages::Start(
        options_.metrics_listen, "--metrics-listen",
        {{"/metrics",
          [this] {
            return HttpPage{200, kMetricsType, metrics_.Text()};
          }},
         {"/healthz", [] { return HttpPage{.body = "ok\n"}; }},
         {"/readyz", [this] { return serving_ ? HttpPage{.body = "ok\n"} : NotReady(); }}});
    if (!pages.ok()) return pages.status();
    pages_ = *std::move(pages);
    spdlog::info("metrics on http://{}/metrics", pages_->address());
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

    converter_ = std::make_unique<Converter>(*model_, &vectors_);
    SchedulerOptions scheduling;
    scheduling.round_rows = model_->device() == "cpu" ? kRoundRowsCpu : kRoundRowsGpu;
    scheduling.metrics = &metrics_;
    metrics_.Serving(converter_->ToModelInfo(), scheduling.round_rows);
    store_->Tell([this](const absl::Status& status) {
      storage_.SetWrites(status);
      grpc_->GetHealthCheckService()->SetServingStatus(kStoreHealth, status.ok());
    });
    scheduling.store_writes = [this](const absl::Status& status) { store_->SetJobWrites(status); };
    grpc_->GetHealthCheckService()->SetServingStatus(kStoreHealth, true);
    scheduling.max_active_jobs = options_.max_concurrent_jobs;
    // The other half is for what a round computes.
    scheduling.max_held_bytes = FreeMemory(*model_) / 2;
    scheduler_ = MakeScheduler(
        *converter_, *store_, feeds_,
        [this] { return MeterEvaluator(Evaluator::Create(*model_, {}), metrics_); }, scheduling);
    if (absl::Status ready = scheduler_->WaitUntilReady(); !ready.ok()) return ready;
    absl::StatusOr<int> recovered =
        RecoverJobs(*converter_, *store_, feeds_, *scheduler_, options_.max_attempts);
    if (!recovered.ok()) return recovered.status();
    if (*recovered > 0) spdlog::info("{} unfinished jobs continue", *recovered);

    if (options_.retention != absl::InfiniteDuration()) {
      sweeper_ = std::make_unique<RetentionSweeper>(*store_, options_.retention);
    }
    api_ = std::make_unique<Api>(*converter_, *store_, vectors_, storage_, feeds_, *scheduler_,
                                 pool_, options_.limits);
    service_.Serve(*api_);
    auto* health = grpc_->GetHealthCheckService();
    health->SetServingStatus(v1::EpoService::service_full_name(), true);
    // The server as a whole; without a name it would be the store, too.
    health->SetServingStatus("", true);
    serving_ = true;
    spdlog::info("listening on {}{}", address_, options_.security.has_tls() ? " with TLS" : "");
    if (options_.security.insecure && !IsLoopback(options_.listen)) {
      spdlog::warn("--insecure: whoever reaches {} may use this server", address_);
    }
    return absl::OkStatus();
  }

  void StopRounds() override {
    if (scheduler_ != nullptr) scheduler_->StopRounds();
  }

  bool Drain() override {
    const absl::Time end = absl::Now() + options_.drain_timeout;
    serving_ = false;
    grpc_->GetHealthCheckService()->SetServingStatus(false);
    store_->Tell(nullptr);
    if (api_ != nullptr) api_->StartDrain();
    const bool stopped = scheduler_ == nullptr ||
                         scheduler_->Stop(end - std::min(kDrainGrace, options_.drain_timeout / 2));
    streams_.Drain(ToGrpcStatus(ShuttingDown()));
    if (!stopped) {
      // A call that waits for the model would hold up an orderly end of gRPC; the streams are told.
      streams_.WaitUntilEmpty(end);
      return false;
    }
    grpc_->Shutdown(absl::ToChronoTime(std::min(end, absl::Now() + kDrainGrace)));
    grpc_.reset();
    return true;
  }

  const std::string& address() const override { return address_; }

 private:
  static HttpPage NotReady() {
    return {503, HttpPage().content_type, "the model is loading, or the server is stopping\n"};
  }

  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
  RpcInterceptors() {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(MakeRpcMeter(metrics_));
    creators.push_back(MakeReflectionGuard(security_->gate()));
    return creators;
  }

  const ServerOptions options_;
  std::string address_;
  std::atomic<bool> serving_ = false;

  // Destroyed from the last to the first: calls use all that stands above them.
  Metrics metrics_;
  std::unique_ptr<Security> security_;
  std::unique_ptr<WatchedStore> store_;
  Vectors vectors_;
  StorageGuard storage_;
  std::unique_ptr<RetentionSweeper> sweeper_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Converter> converter_;
  StreamRegistry streams_;
  JobFeeds feeds_;
  WorkerPool pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Api> api_;
  Service service_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<HttpPages> pages_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  absl::StatusOr<std::unique_ptr<Security>> security =
      Security::Open(options.security, options.limits);
  if (!security.ok()) return security.status();
  absl::StatusOr<std::unique_ptr<Store>> store = OpenStore(options.state_dir);
  if (!store.ok()) return store.status();
  auto server = std::make_unique<ServerImpl>(options, *std::move(store), *std::move(security));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace epo
