#include "server/service.h"

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>
#include <utility>

#include "server/log.h"
#include "server/status.h"
#include "server/sweep_stream.h"

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

// "GetJob" of GetJobRequest.
template <class Request>
std::string_view MethodOf() {
  std::string_view name = Request::descriptor()->name();
  name.remove_suffix(sizeof("Request") - 1);
  return name;
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

// Runs call(api, call context, reactor) on a worker, for a client that has the role; it must see to
// it that the reactor is finished.
template <class Request, class Call>
grpc::ServerUnaryReactor* Service::Start(grpc::CallbackServerContext* context,
                                         const Request* /*request*/, Role role, Call call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Api* api = api_;
  if (api == nullptr) {
    reactor->Finish(ToGrpcStatus(Loading()));
    return reactor;
  }
  absl::StatusOr<CallContext> caller = gate_.Admit(*context, MethodOf<Request>(), role);
  if (!caller.ok()) {
    reactor->Finish(ToGrpcStatus(caller.status()));
  } else if (pool_.waiting() > kMaxWaitingCalls) {
    reactor->Finish(ToGrpcStatus(Busy()));
  } else {
    pool_.Post([api, reactor, trace = Traceparent(*context), caller = *std::move(caller),
                call = std::move(call)] {
      const LogScope scope({.client = caller.client, .traceparent = trace});
      call(*api, caller, reactor);
    });
  }
  return reactor;
}

template <class Request, class Response>
grpc::ServerUnaryReactor* Service::Answer(
    grpc::CallbackServerContext* context, const Request* request, Response* response, Role role,
    absl::StatusOr<Response> (Api::*method)(const CallContext&, const Request&)) {
  return Start(context, request, role,
               [=](Api& api, const CallContext& caller, grpc::ServerUnaryReactor* reactor) {
                 Finish(reactor, response, (api.*method)(caller, *request));
               });
}

template <class Request, class Response>
grpc::ServerUnaryReactor* Service::AnswerLater(
    grpc::CallbackServerContext* context, const Request* request, Response* response, Role role,
    void (Api::*method)(const CallContext&, const Request&, Api::Done<Response>)) {
  return Start(context, request, role,
               [=](Api& api, const CallContext& caller, grpc::ServerUnaryReactor* reactor) {
                 (api.*method)(caller, *request, [=](absl::StatusOr<Response> result) {
                   Finish(reactor, response, std::move(result));
                 });
               });
}

grpc::ServerUnaryReactor* Service::CreateJob(grpc::CallbackServerContext* context,
                                             const v1::CreateJobRequest* request,
                                             v1::Job* response) {
  return Answer(context, request, response, Role::kSubmit, &Api::CreateJob);
}

grpc::ServerUnaryReactor* Service::GetJob(grpc::CallbackServerContext* context,
                                          const v1::GetJobRequest* request, v1::Job* response) {
  return Answer(context, request, response, Role::kRead, &Api::GetJob);
}

grpc::ServerUnaryReactor* Service::ListJobs(grpc::CallbackServerContext* context,
                                            const v1::ListJobsRequest* request,
                                            v1::ListJobsResponse* response) {
  return Answer(context, request, response, Role::kRead, &Api::ListJobs);
}

grpc::ServerUnaryReactor* Service::CancelJob(grpc::CallbackServerContext* context,
                                             const v1::CancelJobRequest* request,
                                             v1::Job* response) {
  return AnswerLater(context, request, response, Role::kSubmit, &Api::CancelJob);
}

grpc::ServerUnaryReactor* Service::PauseJob(grpc::CallbackServerContext* context,
                                            const v1::PauseJobRequest* request, v1::Job* response) {
  return AnswerLater(context, request, response, Role::kSubmit, &Api::PauseJob);
}

grpc::ServerUnaryReactor* Service::ResumeJob(grpc::CallbackServerContext* context,
                                             const v1::ResumeJobRequest* request,
                                             v1::Job* response) {
  return AnswerLater(context, request, response, Role::kSubmit, &Api::ResumeJob);
}

grpc::ServerUnaryReactor* Service::DeleteJob(grpc::CallbackServerContext* context,
                                             const v1::DeleteJobRequest* request,
                                             google::protobuf::Empty* response) {
  return Answer(context, request, response, Role::kSubmit, &Api::DeleteJob);
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* Service::WatchJob(
    grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) {
  if (api_ == nullptr) return new Refusal<v1::WatchJobResponse>(Loading());
  const absl::StatusOr<CallContext> caller = gate_.AdmitStream(*context, "WatchJob", Role::kRead);
  if (!caller.ok()) return new Refusal<v1::WatchJobResponse>(caller.status());
  return epo::WatchJob(streams_, *caller, *request);
}

grpc::ServerWriteReactor<v1::Iteration>* Service::GetHistory(grpc::CallbackServerContext* context,
                                                             const v1::GetHistoryRequest* request) {
  if (api_ == nullptr) return new Refusal<v1::Iteration>(Loading());
  const absl::StatusOr<CallContext> caller = gate_.AdmitStream(*context, "GetHistory", Role::kRead);
  if (!caller.ok()) return new Refusal<v1::Iteration>(caller.status());
  return epo::GetHistory(streams_, *caller, *request);
}

grpc::ServerUnaryReactor* Service::GetFrontier(grpc::CallbackServerContext* context,
                                               const v1::GetFrontierRequest* request,
                                               v1::Frontier* response) {
  return Answer(context, request, response, Role::kRead, &Api::GetFrontier);
}

grpc::ServerUnaryReactor* Service::CreateSweep(grpc::CallbackServerContext* context,
                                               const v1::CreateSweepRequest* request,
                                               v1::Sweep* response) {
  return Answer(context, request, response, Role::kSubmit, &Api::CreateSweep);
}

grpc::ServerUnaryReactor* Service::GetSweep(grpc::CallbackServerContext* context,
                                            const v1::GetSweepRequest* request,
                                            v1::Sweep* response) {
  return Answer(context, request, response, Role::kRead, &Api::GetSweep);
}

grpc::ServerUnaryReactor* Service::ListSweeps(grpc::CallbackServerContext* context,
                                              const v1::ListSweepsRequest* request,
                                              v1::ListSweepsResponse* response) {
  return Answer(context, request, response, Role::kRead, &Api::ListSweeps);
}

grpc::ServerUnaryReactor* Service::CancelSweep(grpc::CallbackServerContext* context,
                                               const v1::CancelSweepRequest* request,
                                               v1::Sweep* response) {
  return AnswerLater(context, request, response, Role::kSubmit, &Api::CancelSweep);
}

grpc::ServerUnaryReactor* Service::DeleteSweep(grpc::CallbackServerContext* context,
                                               const v1::DeleteSweepRequest* request,
                                               google::protobuf::Empty* response) {
  return Answer(context, request, response, Role::kSubmit, &Api::DeleteSweep);
}

grpc::ServerWriteReactor<v1::ObjectiveFrontier>* Service::GetSweepFrontier(
    grpc::CallbackServerContext* context, const v1::GetSweepFrontierRequest* request) {
  if (api_ == nullptr) return new Refusal<v1::ObjectiveFrontier>(Loading());
  const absl::StatusOr<CallContext> caller =
      gate_.AdmitStream(*context, "GetSweepFrontier", Role::kRead);
  if (!caller.ok()) return new Refusal<v1::ObjectiveFrontier>(caller.status());
  return epo::GetSweepFrontier(streams_, *caller, *request);
}

grpc::ServerUnaryReactor* Service::Score(grpc::CallbackServerContext* context,
                                         const v1::ScoreRequest* request,
                                         v1::ScoreResponse* response) {
  return Start(context, request, Role::kSubmit,
               [=](Api& api, const CallContext& caller, grpc::ServerUnaryReactor* reactor) {
                 api.Score(
                     caller, *request, [=] { return context->IsCancelled(); },
                     [=](absl::StatusOr<v1::ScoreResponse> scores) {
                       Finish(reactor, response, std::move(scores));
                     });
               });
}

grpc::ServerWriteReactor<v1::AttributeResponse>* Service::Attribute(
    grpc::CallbackServerContext* context, const v1::AttributeRequest* request) {
  Api* const api = api_;
  if (api == nullptr) return new Refusal<v1::AttributeResponse>(Loading());
  const absl::StatusOr<CallContext> caller =
      gate_.AdmitStream(*context, "Attribute", Role::kSubmit);
  if (!caller.ok()) return new Refusal<v1::AttributeResponse>(caller.status());
  return epo::Attribute(api->attribution(streams_.registry), *caller, *request);
}

grpc::ServerUnaryReactor* Service::UploadVector(grpc::CallbackServerContext* context,
                                                const v1::UploadVectorRequest* request,
                                                v1::UploadedVector* response) {
  return Answer(context, request, response, Role::kSubmit, &Api::UploadVector);
}

grpc::ServerUnaryReactor* Service::Tokenize(grpc::CallbackServerContext* context,
                                            const v1::TokenizeRequest* request,
                                            v1::TokenizeResponse* response) {
  return Answer(context, request, response, Role::kRead, &Api::Tokenize);
}

grpc::ServerUnaryReactor* Service::GetServerInfo(grpc::CallbackServerContext* context,
                                                 const v1::GetServerInfoRequest* request,
                                                 v1::GetServerInfoResponse* response) {
  return Answer(context, request, response, Role::kRead, &Api::GetServerInfo);
}

}  // namespace epo
