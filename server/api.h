// What each call does, free of gRPC's machinery.
#ifndef EPO_SERVER_API_H_
#define EPO_SERVER_API_H_

#include <atomic>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "epo/v1/service.pb.h"
#include "google/protobuf/empty.pb.h"
#include "server/attribution.h"
#include "server/call_context.h"
#include "server/convert.h"
#include "server/feed.h"
#include "server/limits.h"
#include "server/scheduler.h"
#include "server/storage_guard.h"
#include "server/store.h"
#include "server/vectors.h"
#include "server/worker_pool.h"

namespace epo {

// Thread-safe. Calls may wait for the store, never for the model: what needs the model answers
// through `done`, here or later on the pool. The edge has checked that the caller's role allows the
// call; a job of another client is NOT_FOUND, as if it did not exist.
class Api {
 public:
  template <class Response>
  using Done = std::function<void(absl::StatusOr<Response>)>;

  // All of it but `limits` must outlive the Api.
  Api(const Converter& converter, Store& store, Vectors& vectors, const StorageGuard& storage,
      JobFeeds& feeds, Scheduler& scheduler, WorkerPool& pool, const Limits& limits)
      : converter_(converter),
        store_(store),
        vectors_(vectors),
        storage_(storage),
        feeds_(feeds),
        scheduler_(scheduler),
        pool_(pool),
        limits_(limits) {}

  // From here on calls that make work are refused with UNAVAILABLE.
  void StartDrain() { draining_ = true; }

  absl::StatusOr<v1::Job> CreateJob(const CallContext& context,
                                    const v1::CreateJobRequest& request);
  absl::StatusOr<v1::Job> GetJob(const CallContext& context, const v1::GetJobRequest& request);
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const CallContext& context,
                                                const v1::ListJobsRequest& request);
  void CancelJob(const CallContext& context, const v1::CancelJobRequest& request,
                 Done<v1::Job> done);
  void PauseJob(const CallContext& context, const v1::PauseJobRequest& request, Done<v1::Job> done);
  void ResumeJob(const CallContext& context, const v1::ResumeJobRequest& request,
                 Done<v1::Job> done);
  absl::StatusOr<google::protobuf::Empty> DeleteJob(const CallContext& context,
                                                    const v1::DeleteJobRequest& request);
  absl::StatusOr<v1::Frontier> GetFrontier(const CallContext& context,
                                           const v1::GetFrontierRequest& request);
  absl::StatusOr<v1::Sweep> CreateSweep(const CallContext& context,
                                        const v1::CreateSweepRequest& request);
  absl::StatusOr<v1::Sweep> GetSweep(const CallContext& context,
                                     const v1::GetSweepRequest& request);
  absl::StatusOr<v1::ListSweepsResponse> ListSweeps(const CallContext& context,
                                                    const v1::ListSweepsRequest& request);
  void CancelSweep(const CallContext& context, const v1::CancelSweepRequest& request,
                   Done<v1::Sweep> done);
  absl::StatusOr<google::protobuf::Empty> DeleteSweep(const CallContext& context,
                                                      const v1::DeleteSweepRequest& request);
  void Score(const CallContext& context, const v1::ScoreRequest& request,
             std::function<bool()> abandoned, Done<v1::ScoreResponse> done);
  // What Attribute streams need, kept in `registry`; their scheduler refuses them during a drain.
  AttributionSources attribution(StreamRegistry& registry) {
    return {converter_, store_, limits_, scheduler_, pool_, registry};
  }
  absl::StatusOr<v1::UploadedVector> UploadVector(const CallContext& context,
                                                  const v1::UploadVectorRequest& request);
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const CallContext& context,
                                                const v1::TokenizeRequest& request);
  absl::StatusOr<v1::GetServerInfoResponse> GetServerInfo(const CallContext& context,
                                                          const v1::GetServerInfoRequest& request);

 private:
  // Of a list, as it is asked for.
  static int PageSize(int asked, FieldViolations& violations);
  // The job, if the caller may know of it.
  absl::StatusOr<v1::Job> Find(const CallContext& context, const std::string& id) const;
  // Has `ask` take the job `id` to the state `wanted`; FAILED_PRECONDITION when it has ended.
  void ChangeState(const CallContext& context, const std::string& id, v1::Job::State wanted,
                   void (Scheduler::*ask)(const std::string&, Scheduler::JobDone),
                   Done<v1::Job> done);
  // The answer to ChangeState(), from what the scheduler said.
  absl::StatusOr<v1::Job> Changed(const CallContext& context, const std::string& id,
                                  v1::Job::State wanted, absl::StatusOr<v1::Job> job) const;

  const Converter& converter_;
  Store& store_;
  Vectors& vectors_;
  const StorageGuard& storage_;
  JobFeeds& feeds_;
  Scheduler& scheduler_;
  WorkerPool& pool_;
  const Limits limits_;
  std::atomic<bool> draining_ = false;
  // Held while a sweep is in the store and its jobs are not yet with the scheduler.
  absl::Mutex new_sweeps_mutex_;
};

}  // namespace epo

#endif  // EPO_SERVER_API_H_
