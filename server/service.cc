#include "server/service.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "server/log.h"
#include "server/status.h"

namespace epo {
namespace {

// Calls that may wait for a worker; more are refused.
constexpr size_t kMaxWaitingCalls = 4096;

absl::Status Loading() {
  return WithRetry(
      MakeError(absl::StatusCode::kUnavailable, "the model is still loading", "MODEL_LOADING"),
      absl::Seconds(2));
}

absl::Status Busy() {
  return WithRetry(MakeError(absl::StatusCode::kResourceExhausted,
                             "too many calls are waiting; try again later", "CALL_QUEUE_FULL"),
                   absl::Seconds(1));
}

// The call's trace context; empty without a valid one.
std::string Traceparent(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("traceparent");
  if (found == context.client_metadata().end()) return "";
  return std::string(ValidTraceparent({found->second.data(), found->second.size()}));
}

// A stream that ends before its first message.
template <class Message>
class Refusal final : public grpc::ServerWriteReactor<Message> {
 public:
  explicit Refusal(const absl::Status& status) { this->Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

template <class Response>
void Finish(grpc::ServerUnaryReactor* reactor, Response* response,
            absl::StatusOr<Response> result) {
  if (absl::IsInternal(result.status()) || absl::IsDataLoss(result.status())) {
    spdlog::error("a call of {} failed: {}", Response::descriptor()->full_name(),
                  Describe(result.status()));
  }
  if (result.ok()) *response = *std::move(result);
  reactor->Finish(ToGrpcStatus(result.status()));
}

}  // namespace

// Runs call(api, call context, reactor) on a worker; it must see to it that the reactor is
// finished.
template <class Call>
grpc::ServerUnaryReactor* Service::Start(grpc::CallbackServerContext* context, Call call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Api* api = api_;
  if (api == nullptr) {
    reactor->Finish(ToGrpcStatus(Loading()));
  } else if (pool_.waiting() > kMaxWaitingCalls) {
    reactor->Finish(ToGrpcStatus(Busy()));
  } else {
    pool_.Post([api, reactor, trace = Traceparent(*context), caller = CallContext(),
                call = std::move(call)] {
      const LogScope scope({.client = caller.client, .traceparent = trace});
      call(*api, caller, reactor);
    });
  }
  return reactor;
}

template <class Request, class Response>
grpc::ServerUnaryReactor* Service::Answer(
    grpc::CallbackServerContext* context, const Request* request, Response* response,
    absl::StatusOr<Response> (Api::*method)(const CallContext&, const Request&)) {
  return Start(context, [=](Api& api, const CallContext& call, grpc::ServerUnaryReactor* reactor) {
    Finish(reactor, response, (api.*method)(call, *request));
  });
}

grpc::ServerUnaryReactor* Service::CreateJob(grpc::CallbackServerContext* context,
                                             const v1::CreateJobRequest* request,
                                             v1::Job* response) {
  return Answer(context, request, response, &Api::CreateJob);
}

grpc::ServerUnaryReactor* Service::GetJob(grpc::CallbackServerContext* context,
                                          const v1::GetJobRequest* request, v1::Job* response) {
  return Answer(context, request, response, &Api::GetJob);
}

grpc::ServerUnaryReactor* Service::ListJobs(grpc::CallbackServerContext* context,
                                            const v1::ListJobsRequest* request,
                                            v1::ListJobsResponse* response) {
  return Answer(context, request, response, &Api::ListJobs);
}

grpc::ServerUnaryReactor* Service::CancelJob(grpc::CallbackServerContext* context,
                                             const v1::CancelJobRequest* request,
                                             v1::Job* response) {
  return Start(context, [=](Api& api, const CallContext& call, grpc::ServerUnaryReactor* reactor) {
    api.CancelJob(call, *request,
                  [=](absl::StatusOr<v1::Job> job) { Finish(reactor, response, std::move(job)); });
  });
}

grpc::ServerUnaryReactor* Service::DeleteJob(grpc::CallbackServerContext* context,
                                             const v1::DeleteJobRequest* request,
                                             google::protobuf::Empty* response) {
  return Answer(context, request, response, &Api::DeleteJob);
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* Service::WatchJob(
    grpc::CallbackServerContext* /*context*/, const v1::WatchJobRequest* request) {
  if (api_ == nullptr) return new Refusal<v1::WatchJobResponse>(Loading());
  return epo::WatchJob(streams_, CallContext(), *request);
}

grpc::ServerWriteReactor<v1::Iteration>* Service::GetHistory(
    grpc::CallbackServerContext* /*context*/, const v1::GetHistoryRequest* request) {
  if (api_ == nullptr) return new Refusal<v1::Iteration>(Loading());
  return epo::GetHistory(streams_, CallContext(), *request);
}

grpc::ServerUnaryReactor* Service::GetFrontier(grpc::CallbackServerContext* context,
                                               const v1::GetFrontierRequest* request,
                                               v1::Frontier* response) {
  return Answer(context, request, response, &Api::GetFrontier);
}

grpc::ServerUnaryReactor* Service::Score(grpc::CallbackServerContext* context,
                                         const v1::ScoreRequest* request,
                                         v1::ScoreResponse* response) {
  return Start(context, [=](Api& api, const CallContext& call, grpc::ServerUnaryReactor* reactor) {
    api.Score(
        call, *request, [=] { return context->IsCancelled(); },
        [=](absl::StatusOr<v1::ScoreResponse> scores) {
          Finish(reactor, response, std::move(scores));
        });
  });
}

grpc::ServerUnaryReactor* Service::Tokenize(grpc::CallbackServerContext* context,
                                            const v1::TokenizeRequest* request,
                                            v1::TokenizeResponse* response) {
  return Answer(context, request, response, &Api::Tokenize);
}

grpc::ServerUnaryReactor* Service::GetServerInfo(grpc::CallbackServerContext* context,
                                                 const v1::GetServerInfoRequest* request,
                                                 v1::GetServerInfoResponse* response) {
  return Answer(context, request, response, &Api::GetServerInfo);
}

}  // namespace epo
