#include "server/attribution.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/convert_objective.h"
#include "server/find_job.h"
#include "server/job_state.h"
#include "server/model_calls.h"
#include "server/status.h"
#include "server/stream_reactor.h"

namespace epo {
namespace {

constexpr int kDefaultSubstitutes = 32;
constexpr int kMaxSubstitutes = 512;

absl::Status Misplaced(const v1::AttributeRequest& request, FieldViolations& violations) {
  const auto refuse = [&](bool given, const char* field) {
    if (given) violations.push_back({field, "comes from the job; leave it out beside a point"});
  };
  refuse(request.has_objective(), "objective");
  refuse(!request.contexts().empty(), "contexts");
  refuse(request.across_contexts() != v1::ACROSS_CONTEXTS_UNSPECIFIED, "across_contexts");
  refuse(request.fluency_window() != v1::FLUENCY_WINDOW_UNSPECIFIED, "fluency_window");
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

// The point as a prompt to score under its job's objective.
absl::StatusOr<v1::ScoreRequest> OfPoint(const AttributionSources& sources,
                                         const CallContext& context,
                                         const v1::AttributeRequest& request) {
  const v1::FrontierPoint& point = request.point();
  FieldViolations violations;
  if (point.job().empty()) violations.push_back({"point.job", "is required"});
  if (absl::Status status = Misplaced(request, violations); !status.ok()) return status;
  const auto job = FindJob(sources.store, context, point.job());
  if (!job.ok()) return job.status();
  if (job->model_fingerprint() != sources.converter.model().fingerprint()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("job \"", point.job(), "\" is of another model"), "OTHER_MODEL",
                     {{"job", point.job()}});
  }
  const auto last =
      sources.store.GetSteps(point.job(), std::max(job->completed_iterations() - 1, 0), 1);
  if (!last.ok()) return last.status();
  const int points = last->empty() ? 0 : last->front().frontier().points_size();
  if (points == 0) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("job \"", point.job(), "\" ",
                     IsTerminal(job->state()) ? "ended without a frontier" : "has no frontier yet"),
        "NO_FRONTIER", {{"job", point.job()}});
  }
  if (point.index() < 0 || point.index() >= points) {
    return InvalidFields(
        {{"point.index", absl::StrCat("is ", point.index(), "; the frontier of job \"", point.job(),
                                      "\" has the points 0 to ", points - 1)}});
  }
  v1::ScoreRequest out;
  const v1::JobSpec& spec = job->spec();
  *out.mutable_objective() = spec.objective();
  // What the job measured.
  for (int t = 0; t < out.objective().terms_size(); ++t) {
    v1::Term& term = *out.mutable_objective()->mutable_terms(t);
    if (term.measured_scale() && t < job->term_scales_size()) {
      term.set_constant_scale(job->term_scales(t));
    }
  }
  *out.mutable_contexts() = spec.contexts();
  out.set_across_contexts(spec.across_contexts());
  out.set_fluency_window(spec.fluency_window());
  *out.add_prompts()->mutable_ids()->mutable_ids() =
      last->front().frontier().points(point.index()).ids();
  return out;
}

absl::StatusOr<v1::ScoreRequest> OfPrompt(const v1::AttributeRequest& request) {
  v1::ScoreRequest out;
  *out.mutable_objective() = request.objective();
  if (!request.has_objective()) out.clear_objective();
  *out.mutable_contexts() = request.contexts();
  out.set_across_contexts(request.across_contexts());
  out.set_fluency_window(request.fluency_window());
  *out.add_prompts() = request.prompt();
  return out;
}

class AttributionStream final : public StreamReactor<v1::AttributeResponse>,
                                public AttributionSink {
 public:
  AttributionStream(const AttributionSources& sources, const CallContext& context,
                    const v1::AttributeRequest& request)
      : StreamReactor(sources.pool, sources.registry),
        sources_(sources),
        context_(context),
        request_(request) {}

  bool abandoned() const override {
    absl::MutexLock lock(&ready_mutex_);
    return over_;
  }

  void Begin(Score score) override {
    score_ = score;
    auto message = std::make_shared<v1::AttributeResponse>();
    *message->mutable_prompt() = sources_.converter.ToScoredPrompt(
        prompt_, score, HasCrossEntropy(objective_, prompt_.size()));
    Push(std::move(message));
  }

  void Add(int position, std::vector<Substitute> substitutes) override {
    const Tokenizer& tokenizer = sources_.converter.model().tokenizer();
    auto message = std::make_shared<v1::AttributeResponse>();
    v1::TokenAttribution& token = *message->mutable_token();
    token.set_position(position);
    token.set_id(prompt_[position]);
    token.set_text(tokenizer.Decode({prompt_[position]}));
    std::optional<float> best, worst;
    for (const Substitute& substitute : substitutes) {
      v1::Substitute& to = *token.add_substitutes();
      to.set_id(substitute.token);
      to.set_text(tokenizer.Decode({substitute.token}));
      to.set_target(substitute.score.target);
      if (HasCrossEntropy(objective_, prompt_.size())) {
        to.set_cross_entropy(substitute.score.cross_entropy);
      }
      best = std::max(best.value_or(substitute.score.target), substitute.score.target);
      worst = std::min(worst.value_or(substitute.score.target), substitute.score.target);
    }
    token.set_drop_to_best(score_.target - best.value_or(score_.target));
    token.set_drop_to_worst(score_.target - worst.value_or(score_.target));
    Push(std::move(message));
  }

  void End(const absl::Status& status) override {
    {
      absl::MutexLock lock(&ready_mutex_);
      end_ = status;
    }
    Wake();
  }

 private:
  absl::StatusOr<Batch> Fetch() override {
    if (!asked_) {
      asked_ = true;
      if (absl::Status status = Ask(); !status.ok()) return status;
    }
    absl::MutexLock lock(&ready_mutex_);
    Batch batch{std::exchange(ready_, {}), Batch::Then::kWait};
    if (!batch.messages.empty()) {
      batch.then = Batch::Then::kFetch;
    } else if (end_.has_value()) {
      if (!end_->ok()) return *end_;
      batch.then = Batch::Then::kFinish;
    }
    return batch;
  }

  void Ended() override {
    absl::MutexLock lock(&ready_mutex_);
    over_ = true;
  }

  absl::Status Ask() {
    const int count = request_.has_substitutes() ? request_.substitutes() : kDefaultSubstitutes;
    if (count < 1 || count > kMaxSubstitutes) {
      return InvalidFields(
          {{"substitutes", absl::StrCat("is ", count, "; give 1 to ", kMaxSubstitutes)}});
    }
    if (request_.subject_case() == v1::AttributeRequest::SUBJECT_NOT_SET) {
      return InvalidFields({{"prompt", "is required; or give a point of a job's frontier"}});
    }
    absl::StatusOr<v1::ScoreRequest> request =
        request_.has_point() ? OfPoint(sources_, context_, request_) : OfPrompt(request_);
    if (!request.ok()) return request.status();
    FieldViolations violations;
    CheckScoreTexts(*request, sources_.limits, violations);
    if (!violations.empty()) return InvalidFields(Named(std::move(violations)));
    ScoreSpec spec = sources_.converter.ParseScore(*request, violations);
    CheckScore(spec.prompts, sources_.limits, violations);
    if (!spec.prompts.empty()) {
      CheckContexts(spec.objective, std::ssize(spec.prompts[0]), "contexts", sources_.limits,
                    violations);
    }
    if (!violations.empty()) return InvalidFields(Named(std::move(violations)));
    prompt_ = spec.prompts[0];
    objective_ = spec.objective;
    sources_.scheduler.Take(MakeAttributeCall(
        sources_.converter.model(), std::move(spec), count, sources_.converter.allowed(),
        std::static_pointer_cast<AttributionStream>(shared_from_this())));
    return absl::OkStatus();
  }

  // What was asked for as the first of several prompts is this request's only one.
  FieldViolations Named(FieldViolations violations) const {
    const char* const own = request_.has_point() ? "point" : "prompt";
    for (FieldViolation& violation : violations) {
      absl::string_view rest = violation.field;
      if (absl::ConsumePrefix(&rest, "prompts[0]")) {
        violation.field = absl::StrCat(own, rest);
      } else if (request_.has_point() && absl::StartsWith(rest, "contexts[")) {
        violation = {own, absl::StrCat("is of a job whose ", rest, " ", violation.description)};
      }
    }
    return violations;
  }

  void Push(MessagePtr message) {
    {
      absl::MutexLock lock(&ready_mutex_);
      ready_.push_back(std::move(message));
    }
    Wake();
  }

  const AttributionSources sources_;
  const CallContext context_;
  const v1::AttributeRequest request_;
  // Only for Fetch().
  bool asked_ = false;
  // Set before the model's thread is asked, constant from then on.
  Prompt prompt_;
  Objective objective_;
  // Of the model's thread.
  Score score_;

  mutable absl::Mutex ready_mutex_;
  std::vector<MessagePtr> ready_ ABSL_GUARDED_BY(ready_mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(ready_mutex_);
  bool over_ ABSL_GUARDED_BY(ready_mutex_) = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::AttributeResponse>* Attribute(const AttributionSources& sources,
                                                           const CallContext& context,
                                                           const v1::AttributeRequest& request) {
  auto stream = std::make_shared<AttributionStream>(sources, context, request);
  auto* reactor = stream.get();
  stream->Start();
  return reactor;
}

}  // namespace epo
