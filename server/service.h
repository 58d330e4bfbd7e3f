// epo.v1.EpoService over gRPC's callback API: each call is handed to a worker, so gRPC's own
// threads never wait.
#ifndef EPO_SERVER_SERVICE_H_
#define EPO_SERVER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "epo/v1/service.grpc.pb.h"
#include "server/api.h"
#include "server/gate.h"
#include "server/streams.h"
#include "server/worker_pool.h"

namespace epo {

// Thread-safe. Until Serve() every call is answered with UNAVAILABLE: the model is loading.
class Service final : public v1::EpoService::CallbackService {
 public:
  // All of it must outlive the service and every call.
  Service(WorkerPool& pool, const StreamSources& streams, Gate& gate)
      : pool_(pool), streams_(streams), gate_(gate) {}

  // `api` must outlive every call.
  void Serve(Api& api) { api_ = &api; }

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context,
                                     const v1::PauseJobRequest* request,
                                     v1::Job* response) override;
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context,
                                      const v1::ResumeJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context,
                                      const v1::DeleteJobRequest* request,
                                      google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) override;
  grpc::ServerWriteReactor<v1::Iteration>* GetHistory(
      grpc::CallbackServerContext* context, const v1::GetHistoryRequest* request) override;
  grpc::ServerUnaryReactor* GetFrontier(grpc::CallbackServerContext* context,
                                        const v1::GetFrontierRequest* request,
                                        v1::Frontier* response) override;
  grpc::ServerUnaryReactor* CreateSweep(grpc::CallbackServerContext* context,
                                        const v1::CreateSweepRequest* request,
                                        v1::Sweep* response) override;
  grpc::ServerUnaryReactor* GetSweep(grpc::CallbackServerContext* context,
                                     const v1::GetSweepRequest* request,
                                     v1::Sweep* response) override;
  grpc::ServerUnaryReactor* ListSweeps(grpc::CallbackServerContext* context,
                                       const v1::ListSweepsRequest* request,
                                       v1::ListSweepsResponse* response) override;
  grpc::ServerUnaryReactor* CancelSweep(grpc::CallbackServerContext* context,
                                        const v1::CancelSweepRequest* request,
                                        v1::Sweep* response) override;
  grpc::ServerUnaryReactor* DeleteSweep(grpc::CallbackServerContext* context,
                                        const v1::DeleteSweepRequest* request,
                                        google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::ObjectiveFrontier>* GetSweepFrontier(
      grpc::CallbackServerContext* context, const v1::GetSweepFrontierRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerWriteReactor<v1::AttributeResponse>* Attribute(
      grpc::CallbackServerContext* context, const v1::AttributeRequest* request) override;
  grpc::ServerUnaryReactor* UploadVector(grpc::CallbackServerContext* context,
                                         const v1::UploadVectorRequest* request,
                                         v1::UploadedVector* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;

 private:
  template <class Request, class Response>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const Request* request,
                                   Response* response, Role role,
                                   absl::StatusOr<Response> (Api::*method)(const CallContext&,
                                                                           const Request&));
  // As Answer(), of a method that calls back.
  template <class Request, class Response>
  grpc::ServerUnaryReactor* AnswerLater(grpc::CallbackServerContext* context,
                                        const Request* request, Response* response, Role role,
                                        void (Api::*method)(const CallContext&, const Request&,
                                                            Api::Done<Response>));
  template <class Request, class Call>
  grpc::ServerUnaryReactor* Start(grpc::CallbackServerContext* context, const Request* request,
                                  Role role, Call call);

  WorkerPool& pool_;
  const StreamSources streams_;
  Gate& gate_;
  std::atomic<Api*> api_ = nullptr;
};

}  // namespace epo

#endif  // EPO_SERVER_SERVICE_H_
