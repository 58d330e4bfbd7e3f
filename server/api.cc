#include "server/api.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/search/frontier.h"
#include "server/clock.h"
#include "server/find_job.h"
#include "server/find_sweep.h"
#include "server/frontiers.h"
#include "server/initial_job.h"
#include "server/job_request.h"
#include "server/job_state.h"
#include "server/log.h"
#include "server/new_id.h"
#include "server/status.h"

namespace epo {
namespace {

constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;

absl::Status TooManyWaiting(const CallContext& context, int limit) {
  return WithRetry(
      MakeError(
          absl::StatusCode::kResourceExhausted,
          absl::StrCat(context.client.empty() ? "all clients together have "
                                              : absl::StrCat("client ", context.client, " has "),
                       limit,
                       " jobs queued or paused, which is as many as this server keeps "
                       "waiting (--max-queued-jobs-per-client); try again when some have run"),
          "TOO_MANY_QUEUED_JOBS", {{"client", context.client}, {"limit", absl::StrCat(limit)}}),
      absl::Seconds(10));
}

}  // namespace

absl::StatusOr<v1::Job> Api::Find(const CallContext& context, const std::string& id) const {
  if (id.empty()) return InvalidFields({{"id", "is required"}});
  return FindJob(store_, context, id);
}

absl::StatusOr<v1::Job> Api::CreateJob(const CallContext& context,
                                       const v1::CreateJobRequest& request) {
  if (draining_) return ShuttingDown();
  const std::string request_id = absl::AsciiStrToLower(request.request_id());
  const std::string request_bytes = request.spec().SerializeAsString();
  if (!request_id.empty() && !request.validate_only()) {
    // It was good when its job was made, whatever has become of limits, model and deadline since.
    absl::StatusOr<std::optional<v1::Job>> earlier =
        store_.FindRepeat(context.client, request_id, request_bytes);
    if (absl::IsAlreadyExists(earlier.status())) return RequestIdReused(request.request_id());
    if (!earlier.ok()) return earlier.status();
    if (earlier->has_value()) return **std::move(earlier);
  }
  v1::CreateJobRequest complete = request;
  absl::Status initial =
      TakeInitialJob(store_, context, limits_, converter_.model().fingerprint(), complete);
  if (!initial.ok()) return initial;
  absl::StatusOr<SearchSpec> spec =
      CheckJobRequest(complete, converter_, limits_, request.spec().initial_job());
  if (!spec.ok()) return spec.status();
  if (absl::Status room = storage_.Admit(); !room.ok()) return room;

  v1::Job job;
  job.set_client(context.client);
  *job.mutable_spec() = Converter::EffectiveSpec(complete.spec(), *spec);
  job.set_state(v1::Job::QUEUED);
  *job.mutable_create_time() = NowTimestamp();
  job.set_model_fingerprint(converter_.model().fingerprint());
  if (request.validate_only()) {
    scheduler_.DescribeCost(*spec, job);
    return job;
  }

  job.set_id(NewJobId());
  feeds_.Open(job.id(), /*published=*/0);
  absl::StatusOr<Store::Created> created =
      store_.CreateJob(job, request_id, request_bytes, limits_.waiting_jobs_per_client);
  if (!created.ok() || !created->is_new) feeds_.Close(job.id());
  if (absl::IsAlreadyExists(created.status())) return RequestIdReused(request.request_id());
  if (absl::IsOutOfRange(created.status())) {
    return TooManyWaiting(context, limits_.waiting_jobs_per_client);
  }
  if (!created.ok()) return created.status();
  if (created->is_new) {
    const LogScope scope({.job = job.id()});
    spdlog::info("job {} created: {} terms, {} contexts, {} iterations", job.id(),
                 spec->objective.terms.size(), spec->objective.contexts.size(),
                 spec->options.iterations);
    scheduler_.Submit({.job = created->job, .spec = *std::move(spec)});
  }
  return std::move(created->job);
}

absl::StatusOr<v1::Job> Api::GetJob(const CallContext& context, const v1::GetJobRequest& request) {
  absl::StatusOr<v1::Job> job = Find(context, request.id());
  if (job.ok()) scheduler_.Describe(*job);
  return job;
}

int Api::PageSize(int asked, FieldViolations& violations) {
  if (asked < 0) {
    violations.push_back({"page_size", absl::StrCat("is ", asked, "; give 1 to ", kMaxPageSize,
                                                    ", or 0 for the default")});
  }
  return asked == 0 ? kDefaultPageSize : std::min(asked, kMaxPageSize);
}

absl::StatusOr<v1::ListJobsResponse> Api::ListJobs(const CallContext& context,
                                                   const v1::ListJobsRequest& request) {
  FieldViolations violations;
  ListQuery query;
  query.page_size = PageSize(request.page_size(), violations);
  for (int i = 0; i < request.states_size(); ++i) {
    const v1::Job::State state = request.states(i);
    if (!v1::Job::State_IsValid(state) || state == v1::Job::STATE_UNSPECIFIED) {
      violations.push_back({absl::StrCat("states[", i, "]"),
                            absl::StrCat(static_cast<int>(state), " is no state of a job")});
    }
    query.states.push_back(state);
  }
  if (!violations.empty()) return InvalidFields(violations);
  query.page_token = request.page_token();
  if (context.role != Role::kAdmin) query.client = context.client;
  if (!request.sweep().empty()) {
    const absl::StatusOr<v1::Sweep> sweep = FindSweep(store_, context, request.sweep());
    if (!sweep.ok()) return sweep.status();
    query.sweep = sweep->id();
  }
  absl::StatusOr<JobPage> page = store_.ListJobs(query);
  if (absl::IsInvalidArgument(page.status())) {
    return InvalidFields({{"page_token", "is not a next_page_token of this server"}});
  }
  if (!page.ok()) return page.status();
  v1::ListJobsResponse response;
  for (v1::Job& job : page->jobs) {
    scheduler_.Describe(job);
    *response.add_jobs() = std::move(job);
  }
  response.set_next_page_token(page->next_page_token);
  return response;
}

void Api::CancelJob(const CallContext& context, const v1::CancelJobRequest& request,
                    Done<v1::Job> done) {
  ChangeState(context, request.id(), v1::Job::CANCELLED, &Scheduler::Cancel, std::move(done));
}

void Api::PauseJob(const CallContext& context, const v1::PauseJobRequest& request,
                   Done<v1::Job> done) {
  ChangeState(context, request.id(), v1::Job::PAUSED, &Scheduler::Pause, std::move(done));
}

void Api::ResumeJob(const CallContext& context, const v1::ResumeJobRequest& request,
                    Done<v1::Job> done) {
  ChangeState(context, request.id(), v1::Job::QUEUED, &Scheduler::Resume, std::move(done));
}

void Api::ChangeState(const CallContext& context, const std::string& id, v1::Job::State wanted,
                      void (Scheduler::*ask)(const std::string&, Scheduler::JobDone),
                      Done<v1::Job> done) {
  absl::StatusOr<v1::Job> job = Find(context, id);
  if (!job.ok()) return done(job.status());
  if (IsTerminal(job->state())) return done(JobEnded(*job));
  const LogScope scope({.job = id});
  spdlog::info("job {} is to be {}", id, absl::AsciiStrToLower(v1::Job::State_Name(wanted)));
  (scheduler_.*ask)(id, [this, context, id, wanted, done](absl::StatusOr<v1::Job> changed) {
    pool_.Post([this, context, id, wanted, done, changed = std::move(changed)] {
      done(Changed(context, id, wanted, changed));
    });
  });
}

absl::StatusOr<v1::Job> Api::Changed(const CallContext& context, const std::string& id,
                                     v1::Job::State wanted, absl::StatusOr<v1::Job> job) const {
  // Not live any more: it ended while the request was on its way.
  if (absl::IsNotFound(job.status())) job = Find(context, id);
  if (job.ok() && IsTerminal(job->state()) && job->state() != wanted) return JobEnded(*job);
  if (job.ok()) scheduler_.Describe(*job);
  return job;
}

absl::StatusOr<google::protobuf::Empty> Api::DeleteJob(const CallContext& context,
                                                       const v1::DeleteJobRequest& request) {
  absl::StatusOr<v1::Job> job = Find(context, request.id());
  if (!job.ok()) return job.status();
  if (!IsTerminal(job->state())) return JobNotEnded(*job);
  if (!job->sweep().empty()) return JobOfSweep(*job);
  const absl::Status deleted = store_.DeleteJob(job->id());
  if (absl::IsNotFound(deleted)) return JobNotFound(job->id());
  if (!deleted.ok()) return deleted;
  const LogScope scope({.job = job->id()});
  spdlog::info("job {} deleted", job->id());
  return google::protobuf::Empty();
}

absl::StatusOr<v1::Frontier> Api::GetFrontier(const CallContext& context,
                                              const v1::GetFrontierRequest& request) {
  absl::StatusOr<v1::Job> job = Find(context, request.id());
  if (!job.ok()) return job.status();
  if (absl::Status kind = CheckFrontierKind(request.kind()); !kind.ok()) return kind;
  if (request.kind() != v1::PARETO) return PenaltyFrontierOf(store_, *job);
  ParetoSet pareto;
  if (absl::Status added = AddHistory(store_, *job, pareto); !added.ok()) return added;
  return converter_.ToFrontier(pareto.Points());
}

void Api::Score(const CallContext& /*context*/, const v1::ScoreRequest& request,
                std::function<bool()> abandoned, Done<v1::ScoreResponse> done) {
  if (draining_) return done(ShuttingDown());
  FieldViolations violations;
  CheckScoreTexts(request, limits_, violations);
  if (!violations.empty()) return done(InvalidFields(violations));
  absl::StatusOr<ScoreSpec> spec = converter_.ParseScore(request);
  if (!spec.ok()) return done(spec.status());
  size_t longest = 0;
  for (const Prompt& prompt : spec->prompts) longest = std::max(longest, prompt.size());
  CheckScore(spec->prompts, limits_, violations);
  CheckContexts(spec->objective, static_cast<int64_t>(longest), "contexts", limits_, violations);
  if (!violations.empty()) return done(InvalidFields(violations));
  auto kept = std::make_shared<const ScoreSpec>(*spec);
  scheduler_.ScorePrompts(*std::move(spec), std::move(abandoned),
                          [this, kept, done](absl::StatusOr<std::vector<epo::Score>> scores) {
                            pool_.Post([this, kept, done, scores = std::move(scores)] {
                              if (!scores.ok()) return done(scores.status());
                              v1::ScoreResponse response;
                              for (size_t i = 0; i < kept->prompts.size(); ++i) {
                                const Prompt& prompt = kept->prompts[i];
                                *response.add_scores() = converter_.ToScoredPrompt(
                                    prompt, (*scores)[i],
                                    HasCrossEntropy(kept->objective, prompt.size()));
                              }
                              done(std::move(response));
                            });
                          });
}

absl::StatusOr<v1::UploadedVector> Api::UploadVector(const CallContext& context,
                                                     const v1::UploadVectorRequest& request) {
  if (draining_) return ShuttingDown();
  absl::StatusOr<v1::UploadedVector> vector = vectors_.Upload(context, storage_, request);
  if (vector.ok()) {
    spdlog::info("vector {} uploaded: {} x {}", vector->name(), vector->rows(), vector->width());
  }
  return vector;
}

absl::StatusOr<v1::TokenizeResponse> Api::Tokenize(const CallContext& /*context*/,
                                                   const v1::TokenizeRequest& request) {
  if (request.text().empty()) return InvalidFields({{"text", "is required"}});
  FieldViolations violations;
  CheckText(request.text(), "text", limits_, violations);
  if (!violations.empty()) return InvalidFields(violations);
  return converter_.ToTokens(request.text());
}

absl::StatusOr<v1::GetServerInfoResponse> Api::GetServerInfo(
    const CallContext& /*context*/, const v1::GetServerInfoRequest& /*request*/) {
  v1::GetServerInfoResponse response;
  response.set_version(EPO_VERSION);
  *response.mutable_model() = converter_.ToModelInfo();
  return response;
}

}  // namespace epo
