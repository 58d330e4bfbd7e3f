// The Api's sweeps.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/api.h"
#include "server/clock.h"
#include "server/find_sweep.h"
#include "server/new_id.h"
#include "server/status.h"
#include "server/sweep_request.h"
#include "server/sweep_state.h"

namespace epo {
namespace {

absl::Status WrongState(const v1::Sweep& sweep, const char* reason, const char* what) {
  const std::string state = v1::Sweep::State_Name(sweep.state());
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("sweep \"", sweep.id(), "\" ", what, state), reason,
                   {{"id", sweep.id()}, {"state", state}});
}

absl::Status TooManyWaiting(const CallContext& context, size_t jobs, int limit) {
  return WithRetry(
      MakeError(
          absl::StatusCode::kResourceExhausted,
          absl::StrCat("spec: the sweep's ", jobs, " jobs and those that ",
                       context.client.empty() ? "all clients together have "
                                              : absl::StrCat("client ", context.client, " has "),
                       "queued or paused are more than the ", limit,
                       " that this server keeps waiting (--max-queued-jobs-per-client); try again "
                       "when some have run, or make the sweep smaller"),
          "TOO_MANY_QUEUED_JOBS",
          {{"client", context.client},
           {"jobs", absl::StrCat(jobs)},
           {"limit", absl::StrCat(limit)}}),
      absl::Seconds(10));
}

// The sweep as it will be stored; its jobs tell the rest.
v1::Sweep NewSweep(const CallContext& context, const v1::SweepSpec& spec, const SweepPlan& plan,
                   const Model& model) {
  v1::Sweep sweep;
  sweep.set_id(NewSweepId());
  sweep.set_client(context.client);
  *sweep.mutable_spec() = spec;
  v1::JobSpec& job = *sweep.mutable_spec()->mutable_job();
  job = Converter::EffectiveSpec(spec.job(), plan.base);
  job.clear_objective();
  job.clear_seed();
  if (spec.seeds().empty()) sweep.mutable_spec()->add_seeds(plan.seeds.front());
  sweep.set_objective_count(static_cast<int>(plan.objectives.size()));
  sweep.set_seed_count(static_cast<int>(plan.seeds.size()));
  *sweep.mutable_create_time() = NowTimestamp();
  sweep.set_total_iterations(static_cast<int64_t>(plan.jobs()) * job.iterations());
  sweep.set_model_fingerprint(model.fingerprint());
  return sweep;
}

std::vector<v1::Job> NewJobs(const v1::Sweep& sweep, const SweepPlan& plan) {
  std::vector<v1::Job> jobs(plan.jobs());
  for (size_t i = 0; i < jobs.size(); ++i) {
    v1::Job& job = jobs[i];
    job.set_id(NewJobId());
    job.set_client(sweep.client());
    *job.mutable_spec() = sweep.spec().job();
    *job.mutable_spec()->mutable_objective() = plan.wire_objectives[i / plan.seeds.size()];
    job.mutable_spec()->set_seed(plan.seeds[i % plan.seeds.size()]);
    job.set_state(v1::Job::QUEUED);
    *job.mutable_create_time() = sweep.create_time();
    job.set_model_fingerprint(sweep.model_fingerprint());
    job.set_sweep(sweep.id());
    job.set_sweep_index(static_cast<int>(i));
  }
  return jobs;
}

}  // namespace

absl::StatusOr<v1::Sweep> Api::CreateSweep(const CallContext& context,
                                           const v1::CreateSweepRequest& request) {
  if (draining_) return ShuttingDown();
  const std::string request_id = absl::AsciiStrToLower(request.request_id());
  const std::string request_bytes = request.spec().SerializeAsString();
  if (!request_id.empty()) {
    absl::StatusOr<std::optional<v1::Sweep>> earlier =
        store_.FindSweepRepeat(context.client, request_id, request_bytes);
    if (absl::IsAlreadyExists(earlier.status())) return RequestIdReused(request.request_id());
    if (!earlier.ok()) return earlier.status();
    if (earlier->has_value()) return **std::move(earlier);
  }
  const absl::StatusOr<SweepPlan> plan = CheckSweepRequest(request, converter_, limits_);
  if (!plan.ok()) return plan.status();
  if (absl::Status room = storage_.Admit(); !room.ok()) return room;

  const v1::Sweep sweep = NewSweep(context, request.spec(), *plan, converter_.model());
  std::vector<v1::Job> jobs = NewJobs(sweep, *plan);
  absl::StatusOr<Store::CreatedSweep> created;
  {
    // So that CancelSweep() finds either no sweep or all of its jobs with the scheduler.
    absl::MutexLock lock(&new_sweeps_mutex_);
    for (const v1::Job& job : jobs) feeds_.Open(job.id(), /*published=*/0);
    created =
        store_.CreateSweep(sweep, jobs, request_id, request_bytes, limits_.waiting_jobs_per_client);
    const bool is_new = created.ok() && created->is_new;
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (is_new) {
        scheduler_.Submit({.job = std::move(jobs[i]), .spec = plan->Search(i)});
      } else {
        feeds_.Close(jobs[i].id());
      }
    }
  }
  if (absl::IsAlreadyExists(created.status())) return RequestIdReused(request.request_id());
  if (absl::IsOutOfRange(created.status())) {
    return TooManyWaiting(context, plan->jobs(), limits_.waiting_jobs_per_client);
  }
  if (!created.ok()) return created.status();
  if (created->is_new) {
    spdlog::info("{} created: {} jobs of {} objectives and {} seeds, {} iterations each",
                 sweep.id(), plan->jobs(), sweep.objective_count(), sweep.seed_count(),
                 plan->base.options.iterations);
  }
  return std::move(created->sweep);
}

absl::StatusOr<v1::Sweep> Api::GetSweep(const CallContext& context,
                                        const v1::GetSweepRequest& request) {
  return FindSweep(store_, context, request.id());
}

absl::StatusOr<v1::ListSweepsResponse> Api::ListSweeps(const CallContext& context,
                                                       const v1::ListSweepsRequest& request) {
  FieldViolations violations;
  ListQuery query;
  query.page_size = PageSize(request.page_size(), violations);
  if (!violations.empty()) return InvalidFields(violations);
  query.page_token = request.page_token();
  if (context.role != Role::kAdmin) query.client = context.client;
  absl::StatusOr<SweepPage> page = store_.ListSweeps(query);
  if (absl::IsInvalidArgument(page.status())) {
    return InvalidFields({{"page_token", "is not a next_page_token of this server"}});
  }
  if (!page.ok()) return page.status();
  v1::ListSweepsResponse response;
  for (v1::Sweep& sweep : page->sweeps) {
    // A page fits a message, however much was asked for.
    sweep.mutable_spec()->clear_objectives();
    sweep.mutable_spec()->clear_seeds();
    sweep.mutable_spec()->mutable_job()->clear_initial_prompts();
    *response.add_sweeps() = std::move(sweep);
  }
  response.set_next_page_token(page->next_page_token);
  return response;
}

void Api::CancelSweep(const CallContext& context, const v1::CancelSweepRequest& request,
                      Done<v1::Sweep> done) {
  const std::string& id = request.id();
  absl::StatusOr<v1::Sweep> sweep = FindSweep(store_, context, id);
  if (!sweep.ok()) return done(sweep.status());
  if (IsTerminal(sweep->state())) {
    return done(WrongState(*sweep, "SWEEP_ENDED", "has already ended: "));
  }
  spdlog::info("{} is to be cancelled", id);
  {
    // Its jobs may be on their way to the scheduler.
    absl::MutexLock lock(&new_sweeps_mutex_);
  }
  scheduler_.CancelSweep(id, [this, context, id, done](const absl::Status& status) {
    pool_.Post([this, context, id, done, status] {
      if (!status.ok()) return done(status);
      absl::StatusOr<v1::Sweep> ended = FindSweep(store_, context, id);
      if (ended.ok()) {
        spdlog::info("{} {}: {} jobs succeeded, {} failed, {} cancelled", id,
                     v1::Sweep::State_Name(ended->state()), ended->jobs().succeeded(),
                     ended->jobs().failed(), ended->jobs().cancelled());
      }
      done(std::move(ended));
    });
  });
}

absl::StatusOr<google::protobuf::Empty> Api::DeleteSweep(const CallContext& context,
                                                         const v1::DeleteSweepRequest& request) {
  absl::StatusOr<v1::Sweep> sweep = FindSweep(store_, context, request.id());
  if (!sweep.ok()) return sweep.status();
  if (!IsTerminal(sweep->state())) {
    return WrongState(*sweep, "SWEEP_NOT_ENDED", "must be cancelled before it is deleted: it is ");
  }
  const absl::Status deleted = store_.DeleteSweep(sweep->id());
  if (absl::IsNotFound(deleted)) return SweepNotFound(sweep->id());
  if (!deleted.ok()) return deleted;
  spdlog::info("{} deleted", sweep->id());
  return google::protobuf::Empty();
}

}  // namespace epo
