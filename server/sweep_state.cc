#include "server/sweep_state.h"

#include <tuple>

namespace epo {
namespace {

bool Earlier(const google::protobuf::Timestamp& a, const google::protobuf::Timestamp& b) {
  return std::tuple(a.seconds(), a.nanos()) < std::tuple(b.seconds(), b.nanos());
}

}  // namespace

void AddToSweep(const v1::Job& job, v1::Sweep& sweep) {
  v1::JobCounts& jobs = *sweep.mutable_jobs();
  switch (job.state()) {
    case v1::Job::QUEUED:
      jobs.set_queued(jobs.queued() + 1);
      break;
    case v1::Job::RUNNING:
      jobs.set_running(jobs.running() + 1);
      break;
    case v1::Job::PAUSED:
      jobs.set_paused(jobs.paused() + 1);
      break;
    case v1::Job::SUCCEEDED:
      jobs.set_succeeded(jobs.succeeded() + 1);
      break;
    case v1::Job::FAILED:
      jobs.set_failed(jobs.failed() + 1);
      break;
    case v1::Job::CANCELLED:
      jobs.set_cancelled(jobs.cancelled() + 1);
      break;
    default:
      break;
  }
  sweep.set_completed_iterations(sweep.completed_iterations() + job.completed_iterations());
  sweep.set_evaluations(sweep.evaluations() + job.evaluations());
  sweep.set_run_seconds(sweep.run_seconds() + job.run_seconds());
  if (job.has_start_time() &&
      (!sweep.has_start_time() || Earlier(job.start_time(), sweep.start_time()))) {
    *sweep.mutable_start_time() = job.start_time();
  }
  if (job.has_end_time() && (!sweep.has_end_time() || Earlier(sweep.end_time(), job.end_time()))) {
    *sweep.mutable_end_time() = job.end_time();
  }
}

void SettleSweep(v1::Sweep& sweep) {
  const v1::JobCounts& jobs = sweep.jobs();
  if (jobs.queued() + jobs.running() + jobs.paused() == 0) {
    sweep.set_state(jobs.failed() > 0      ? v1::Sweep::FAILED
                    : jobs.cancelled() > 0 ? v1::Sweep::CANCELLED
                                           : v1::Sweep::SUCCEEDED);
    return;
  }
  sweep.clear_end_time();
  sweep.set_state(jobs.queued() + jobs.running() == 0 ? v1::Sweep::PAUSED
                  : sweep.has_start_time()            ? v1::Sweep::RUNNING
                                                      : v1::Sweep::QUEUED);
}

}  // namespace epo
