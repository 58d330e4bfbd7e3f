#include "server/retention.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>

#include "absl/time/clock.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/status.h"

namespace epo {
namespace {

constexpr int kPage = 1000;

}  // namespace

absl::StatusOr<int> DeleteEndedBefore(Store& store, absl::Time cutoff) {
  int deleted = 0;
  ListQuery query{.page_size = kPage,
                  .states = {v1::Job::SUCCEEDED, v1::Job::FAILED, v1::Job::CANCELLED}};
  do {
    absl::StatusOr<JobPage> page = store.ListJobs(query);
    if (!page.ok()) return page.status();
    for (const v1::Job& job : page->jobs) {
      const absl::Time end = ToTime(job.end_time());
      if (!job.has_end_time() || end >= cutoff) continue;
      const absl::Status status = store.DeleteJob(job.id());
      // A client was faster.
      if (absl::IsNotFound(status)) continue;
      if (!status.ok()) return status;
      const LogScope scope({.job = job.id(), .client = job.client()});
      spdlog::info("job {} deleted: it ended at {}, before {}", job.id(), absl::FormatTime(end),
                   absl::FormatTime(cutoff));
      ++deleted;
    }
    query.page_token = page->next_page_token;
  } while (!query.page_token.empty());
  return deleted;
}

RetentionSweeper::RetentionSweeper(Store& store, absl::Duration retention)
    : store_(store), retention_(retention), thread_([this] { Run(); }) {}

RetentionSweeper::~RetentionSweeper() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void RetentionSweeper::Run() {
  const absl::Duration period = std::clamp(retention_ / 10, absl::Seconds(1), absl::Hours(1));
  while (true) {
    const absl::StatusOr<int> deleted = DeleteEndedBefore(store_, absl::Now() - retention_);
    if (!deleted.ok()) {
      spdlog::warn("expired jobs could not be deleted, which is tried again in {}: {}",
                   absl::FormatDuration(period), Describe(deleted.status()));
    }
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), period)) return;
  }
}

}  // namespace epo
