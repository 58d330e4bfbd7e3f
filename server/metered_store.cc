#include "server/metered_store.h"

#include <chrono>
#include <type_traits>
#include <utility>

#include "server/forwarding_store.h"
#include "server/job_state.h"

namespace epo {
namespace {

using Write = Metrics::Write;

// The store itself failed, as opposed to a request that cannot be fulfilled.
bool IsRefusal(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsUnavailable(status) ||
         absl::IsDataLoss(status) || absl::IsInternal(status);
}

const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <class T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

class MeteredStore final : public ForwardingStore {
 public:
  MeteredStore(std::unique_ptr<Store> store, Metrics& metrics)
      : ForwardingStore(std::move(store)), metrics_(metrics) {}

  absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& request_id,
                                    const std::string& request, int max_waiting) override {
    absl::StatusOr<Created> created =
        Measure(Write::kCreate, job.ByteSizeLong() + request.size(),
                [&] { return ForwardingStore::CreateJob(job, request_id, request, max_waiting); });
    if (created.ok() && created->is_new) metrics_.JobCreated();
    return created;
  }

  absl::StatusOr<CreatedSweep> CreateSweep(const v1::Sweep& sweep, const std::vector<v1::Job>& jobs,
                                           const std::string& request_id,
                                           const std::string& request, int max_waiting) override {
    size_t bytes = sweep.ByteSizeLong() + request.size();
    for (const v1::Job& job : jobs) bytes += job.ByteSizeLong();
    absl::StatusOr<CreatedSweep> created = Measure(Write::kCreate, bytes, [&] {
      return ForwardingStore::CreateSweep(sweep, jobs, request_id, request, max_waiting);
    });
    if (created.ok() && created->is_new) {
      for (size_t i = 0; i < jobs.size(); ++i) metrics_.JobCreated();
    }
    return created;
  }

  absl::Status UpdateJob(const v1::Job& job) override {
    absl::Status status = Measure(Write::kUpdate, job.ByteSizeLong(),
                                  [&] { return ForwardingStore::UpdateJob(job); });
    if (status.ok() && IsTerminal(job.state())) metrics_.JobEnded(job);
    return status;
  }

  absl::Status UpdateJobs(const std::vector<v1::Job>& jobs) override {
    size_t bytes = 0;
    for (const v1::Job& job : jobs) bytes += job.ByteSizeLong();
    absl::Status status =
        Measure(Write::kUpdate, bytes, [&] { return ForwardingStore::UpdateJobs(jobs); });
    for (const v1::Job& job : jobs) {
      if (status.ok() && IsTerminal(job.state())) metrics_.JobEnded(job);
    }
    return status;
  }

  absl::Status NoteRound(const std::vector<std::string>& ids,
                         const std::vector<v1::Job>& begun) override {
    size_t bytes = 0;
    for (const std::string& id : ids) bytes += id.size();
    for (const v1::Job& job : begun) bytes += job.ByteSizeLong();
    return Measure(Write::kRound, bytes, [&] { return ForwardingStore::NoteRound(ids, begun); });
  }

  absl::Status AppendStep(const StepRecord& record) override {
    const size_t bytes = record.job.ByteSizeLong() + record.step.ByteSizeLong() +
                         record.iteration.ByteSizeLong() + record.checkpoint.size();
    absl::Status status =
        Measure(Write::kStep, bytes, [&] { return ForwardingStore::AppendStep(record); });
    if (status.ok()) metrics_.StepCommitted(record.job, record.step);
    if (status.ok() && IsTerminal(record.job.state())) metrics_.JobEnded(record.job);
    return status;
  }

  absl::Status PutVector(const StoredVector& vector, const std::string& client,
                         int max_vectors) override {
    return Measure(Write::kVector, vector.values.size(),
                   [&] { return ForwardingStore::PutVector(vector, client, max_vectors); });
  }

  absl::Status TryWrite() override {
    return Measure(Write::kTry, 0, [&] { return ForwardingStore::TryWrite(); });
  }

  absl::Status DeleteJob(const std::string& id) override {
    return Measure(Write::kDelete, 0, [&] { return ForwardingStore::DeleteJob(id); });
  }

  absl::Status DeleteSweep(const std::string& id) override {
    return Measure(Write::kDelete, 0, [&] { return ForwardingStore::DeleteSweep(id); });
  }

 private:
  template <class Call>
  std::invoke_result_t<Call> Measure(Write write, size_t bytes, Call call) {
    const auto start = std::chrono::steady_clock::now();
    auto result = call();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (result.ok()) {
      metrics_.StoreCommitted(write, seconds.count(), bytes);
    } else if (IsRefusal(StatusOf(result))) {
      metrics_.StoreRefused(write);
    }
    return result;
  }

  Metrics& metrics_;
};

}  // namespace

std::unique_ptr<Store> MeterStore(std::unique_ptr<Store> store, Metrics& metrics) {
  return std::make_unique<MeteredStore>(std::move(store), metrics);
}

}  // namespace epo
