#include "server/watched_store.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "server/status.h"
#include "server/storage_guard.h"

namespace epo {
namespace {

// What may pass: the disk is full, the database is locked, or an I/O error.
bool IsRefusal(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
}

}  // namespace

WatchedStore::WatchedStore(std::unique_ptr<Store> store, std::filesystem::path dir,
                           absl::Duration retry)
    : ForwardingStore(std::move(store)),
      dir_(std::move(dir)),
      retry_(retry),
      thread_([this] { Run(); }) {}

WatchedStore::~WatchedStore() {
  {
    const absl::MutexLock lock(&mutex_);
    told_ = nullptr;
    stopping_ = true;
  }
  thread_.join();
}

void WatchedStore::Tell(Told told) {
  const absl::MutexLock lock(&mutex_);
  told_ = std::move(told);
}

void WatchedStore::SetJobWrites(const absl::Status& status) {
  const absl::MutexLock lock(&mutex_);
  Set(job_writes_, status);
}

absl::StatusOr<Store::Created> WatchedStore::CreateJob(const v1::Job& job,
                                                       const std::string& request_id,
                                                       const std::string& request,
                                                       int max_waiting) {
  absl::StatusOr<Created> created =
      ForwardingStore::CreateJob(job, request_id, request, max_waiting);
  if (absl::Status answer = Answer(created.status()); !answer.ok()) return answer;
  return created;
}

absl::StatusOr<Store::CreatedSweep> WatchedStore::CreateSweep(const v1::Sweep& sweep,
                                                              const std::vector<v1::Job>& jobs,
                                                              const std::string& request_id,
                                                              const std::string& request,
                                                              int max_waiting) {
  absl::StatusOr<CreatedSweep> created =
      ForwardingStore::CreateSweep(sweep, jobs, request_id, request, max_waiting);
  if (absl::Status answer = Answer(created.status()); !answer.ok()) return answer;
  return created;
}

absl::Status WatchedStore::PutVector(const StoredVector& vector, const std::string& client,
                                     int max_vectors) {
  return Answer(ForwardingStore::PutVector(vector, client, max_vectors));
}

absl::Status WatchedStore::DeleteJob(const std::string& id) {
  return Answer(ForwardingStore::DeleteJob(id));
}

absl::Status WatchedStore::DeleteSweep(const std::string& id) {
  return Answer(ForwardingStore::DeleteSweep(id));
}

absl::Status WatchedStore::Answer(absl::Status status) {
  // Neither what succeeds nor what is refused for its content: what clears a refusal is the small
  // write, which comes to the disk in any case.
  if (!IsRefusal(status)) return status;
  const absl::MutexLock lock(&mutex_);
  if (call_writes_.ok() && job_writes_.ok()) {
    spdlog::error("the store refused a write, and a small one is tried every {}: {}",
                  absl::FormatDuration(retry_), Describe(status));
  }
  Set(call_writes_, status);
  return StoreRefusesWrites(status, dir_);
}

void WatchedStore::Set(absl::Status& which, const absl::Status& status) {
  const bool refused = !call_writes_.ok() || !job_writes_.ok();
  which = status;
  const bool refuses = !call_writes_.ok() || !job_writes_.ok();
  if (refuses != refused && told_) told_(status);
}

bool WatchedStore::WaitForTry() {
  const absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WatchedStore::HasToTry));
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), retry_);
}

void WatchedStore::Run() {
  while (WaitForTry()) {
    if (!TryWrite().ok()) continue;
    const absl::MutexLock lock(&mutex_);
    if (job_writes_.ok()) spdlog::info("the store takes writes again");
    Set(call_writes_, absl::OkStatus());
  }
}

}  // namespace epo
