#include "server/initial_job.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/search/search.h"
#include "server/find_job.h"
#include "server/job_state.h"
#include "server/status.h"

namespace epo {
namespace {

constexpr char kField[] = "spec.initial_job";

absl::Status Bad(const std::string& description) { return InvalidFields({{kField, description}}); }

// The point that slot `i` of `slots` gets.
int PointOf(int i, int slots, int points) {
  if (points <= slots || slots < 2) return i % points;
  return static_cast<int>(int64_t{i} * (points - 1) / (slots - 1));
}

}  // namespace

absl::Status TakeInitialJob(const Store& store, const CallContext& context, const Limits& limits,
                            const std::string& model_fingerprint, v1::CreateJobRequest& request) {
  if (request.spec().initial_job().empty()) return absl::OkStatus();
  v1::JobSpec& spec = *request.mutable_spec();
  const std::string id = spec.initial_job();
  const std::string named = absl::StrCat("names the job \"", id, "\", ");
  if (!spec.initial_prompts().empty()) {
    return Bad("cannot be given together with initial_prompts; leave one of them out");
  }
  const absl::StatusOr<v1::Job> job = FindJob(store, context, id);
  if (absl::IsNotFound(job.status())) {
    return Bad(absl::StrCat(named, "but there is no such job"));
  }
  if (!job.ok()) return job.status();
  if (job->model_fingerprint() != model_fingerprint) {
    return Bad(absl::StrCat(named, "which ran on another model"));
  }
  const absl::StatusOr<std::vector<v1::Step>> last =
      store.GetSteps(id, std::max(job->completed_iterations() - 1, 0), 1);
  if (!last.ok()) return last.status();
  if (last->empty() || last->front().frontier().points().empty()) {
    return Bad(absl::StrCat(named, IsTerminal(job->state())
                                       ? "which ended without a frontier"
                                       : "which has no frontier yet; wait until it has one"));
  }
  const auto& points = last->front().frontier().points();
  if (const int tokens = points[0].ids_size(); spec.has_tokens() && spec.tokens() != tokens) {
    return Bad(absl::StrCat(named, "whose prompts have ", tokens, " tokens, but tokens is ",
                            spec.tokens(), "; make them equal"));
  }
  spec.clear_initial_job();
  // A population that is no good is told of by its own name.
  const int wanted = spec.has_population() ? spec.population() : SearchOptions().population;
  const int slots = std::clamp(wanted, 1, std::max(limits.population, 1));
  for (int i = 0; i < slots; ++i) {
    *spec.add_initial_prompts()->mutable_ids()->mutable_ids() =
        points[PointOf(i, slots, points.size())].ids();
  }
  return absl::OkStatus();
}

}  // namespace epo
