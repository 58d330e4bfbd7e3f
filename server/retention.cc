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
// Each is read with the states of its jobs.
constexpr int kSweepPage = 20;

// The jobs that belong to no sweep.
absl::StatusOr<int> DeleteJobsEndedBefore(Store& store, absl::Time cutoff) {
  int deleted = 0;
  ListQuery query{.page_size = kPage,
                  .states = {v1::Job::SUCCEEDED, v1::Job::FAILED, v1::Job::CANCELLED}};
  do {
    absl::StatusOr<JobPage> page = store.ListJobs(query);
    if (!page.ok()) return page.status();
    for (const v1::Job& job : page->jobs) {
      const absl::Time end = ToTime(job.end_time());
      if (!job.sweep().empty() || !job.has_end_time() || end >= cutoff) continue;
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

// The sweeps whose last job ended before `cutoff`. Returns how many jobs went with them.
absl::StatusOr<int> DeleteSweepsEndedBefore(Store& store, absl::Time cutoff) {
  int deleted = 0;
  ListQuery query{.page_size = kSweepPage};
  do {
    absl::StatusOr<SweepPage> page = store.ListSweeps(query);
    if (!page.ok()) return page.status();
    for (const v1::Sweep& sweep : page->sweeps) {
      const absl::Time end = ToTime(sweep.end_time());
      if (!sweep.has_end_time() || end >= cutoff) continue;
      const absl::Status status = store.DeleteSweep(sweep.id());
      if (absl::IsNotFound(status)) continue;
      if (!status.ok()) return status;
      const LogScope scope({.client = sweep.client()});
      spdlog::info("{} deleted: it ended at {}, before {}", sweep.id(), absl::FormatTime(end),
                   absl::FormatTime(cutoff));
      deleted += sweep.objective_count() * sweep.seed_count();
    }
    query.page_token = page->next_page_token;
  } while (!query.page_token.empty());
  return deleted;
}

}  // namespace

absl::StatusOr<int> DeleteEndedBefore(Store& store, absl::Time cutoff) {
  const absl::StatusOr<int> jobs = DeleteJobsEndedBefore(store, cutoff);
  if (!jobs.ok()) return jobs;
  const absl::StatusOr<int> of_sweeps = DeleteSweepsEndedBefore(store, cutoff);
  if (!of_sweeps.ok()) return of_sweeps;
  return *jobs + *of_sweeps;
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
