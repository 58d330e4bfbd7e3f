// A store that hands every call on to another, for those that do something about a few of them.
#ifndef EPO_SERVER_FORWARDING_STORE_H_
#define EPO_SERVER_FORWARDING_STORE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/store.h"

namespace epo {

// As thread-safe as the other.
class ForwardingStore : public Store {
 public:
  explicit ForwardingStore(std::unique_ptr<Store> store) : store_(std::move(store)) {}

  absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& request_id,
                                    const std::string& request, int max_waiting) override {
    return store_->CreateJob(job, request_id, request, max_waiting);
  }
  absl::StatusOr<CreatedSweep> CreateSweep(const v1::Sweep& sweep, const std::vector<v1::Job>& jobs,
                                           const std::string& request_id,
                                           const std::string& request, int max_waiting) override {
    return store_->CreateSweep(sweep, jobs, request_id, request, max_waiting);
  }
  absl::Status UpdateJob(const v1::Job& job) override { return store_->UpdateJob(job); }
  absl::Status UpdateJobs(const std::vector<v1::Job>& jobs) override {
    return store_->UpdateJobs(jobs);
  }
  absl::Status NoteRound(const std::vector<std::string>& ids,
                         const std::vector<v1::Job>& begun) override {
    return store_->NoteRound(ids, begun);
  }
  absl::Status TryWrite() override { return store_->TryWrite(); }
  absl::Status AppendStep(const StepRecord& record) override { return store_->AppendStep(record); }
  absl::Status DeleteJob(const std::string& id) override { return store_->DeleteJob(id); }
  absl::Status DeleteSweep(const std::string& id) override { return store_->DeleteSweep(id); }
  absl::StatusOr<v1::Job> GetJob(const std::string& id) const override {
    return store_->GetJob(id);
  }
  absl::StatusOr<JobPage> ListJobs(const ListQuery& query) const override {
    return store_->ListJobs(query);
  }
  absl::StatusOr<v1::Sweep> GetSweep(const std::string& id) const override {
    return store_->GetSweep(id);
  }
  absl::StatusOr<SweepPage> ListSweeps(const ListQuery& query) const override {
    return store_->ListSweeps(query);
  }
  absl::StatusOr<std::vector<v1::Job>> SweepJobs(const std::string& id, int first,
                                                 int limit) const override {
    return store_->SweepJobs(id, first, limit);
  }
  absl::StatusOr<std::vector<v1::Job>> UnfinishedJobs() const override {
    return store_->UnfinishedJobs();
  }
  absl::StatusOr<std::vector<std::string>> NotedRound() const override {
    return store_->NotedRound();
  }
  absl::StatusOr<std::map<v1::Job::State, int64_t>> CountJobs() const override {
    return store_->CountJobs();
  }
  absl::StatusOr<std::optional<v1::Job>> FindRepeat(const std::string& client,
                                                    const std::string& request_id,
                                                    const std::string& request) const override {
    return store_->FindRepeat(client, request_id, request);
  }
  absl::StatusOr<std::optional<v1::Sweep>> FindSweepRepeat(
      const std::string& client, const std::string& request_id,
      const std::string& request) const override {
    return store_->FindSweepRepeat(client, request_id, request);
  }
  absl::StatusOr<int64_t> UsedBytes() const override { return store_->UsedBytes(); }
  absl::Status PutVector(const StoredVector& vector, const std::string& client,
                         int max_vectors) override {
    return store_->PutVector(vector, client, max_vectors);
  }
  absl::StatusOr<StoredVector> GetVectorRow(const std::string& name, int row) const override {
    return store_->GetVectorRow(name, row);
  }
  absl::StatusOr<std::string> GetCheckpoint(const std::string& id) const override {
    return store_->GetCheckpoint(id);
  }
  absl::StatusOr<std::vector<v1::Step>> GetSteps(const std::string& id, int first,
                                                 int limit) const override {
    return store_->GetSteps(id, first, limit);
  }
  absl::StatusOr<std::vector<v1::Iteration>> GetIterations(const std::string& id, int first,
                                                           int limit) const override {
    return store_->GetIterations(id, first, limit);
  }

 private:
  const std::unique_ptr<Store> store_;
};

}  // namespace epo

#endif  // EPO_SERVER_FORWARDING_STORE_H_
