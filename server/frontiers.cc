#include "server/frontiers.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/frontier_history.h"
#include "server/job_state.h"
#include "server/status.h"

namespace epo {
namespace {

constexpr int kHistoryPage = 16;

}  // namespace

absl::Status CheckFrontierKind(v1::FrontierKind kind) {
  if (v1::FrontierKind_IsValid(kind)) return absl::OkStatus();
  return InvalidFields({{"kind", absl::StrCat(static_cast<int>(kind),
                                              " is no kind of frontier; give LAMBDA or PARETO")}});
}

absl::StatusOr<v1::Frontier> PenaltyFrontierOf(const Store& store, const v1::Job& job) {
  // Each step carries the frontier of the history up to it.
  absl::StatusOr<std::vector<v1::Step>> last =
      store.GetSteps(job.id(), std::max(job.completed_iterations() - 1, 0), 1);
  if (!last.ok()) return last.status();
  return last->empty() ? v1::Frontier() : std::move(*last->front().mutable_frontier());
}

absl::Status AddHistory(const Store& store, const v1::Job& job, ParetoSet& pareto) {
  const bool reduced = job.spec().history() == v1::FRONTIER;
  // What dominates a prompt below the ceiling is below it too: so a reduced history has all.
  const v1::Constraints& constraints = job.spec().constraints();
  const double ceiling = constraints.has_max_cross_entropy()
                             ? constraints.max_cross_entropy()
                             : std::numeric_limits<double>::infinity();
  for (int next = 0;;) {
    absl::StatusOr<std::vector<v1::Iteration>> page =
        store.GetIterations(job.id(), next, kHistoryPage);
    if (!page.ok()) return page.status();
    if (page->empty()) return absl::OkStatus();
    for (const v1::Iteration& iteration : *page) {
      for (const ScoredPrompt& scored :
           reduced ? FrontierMembers(iteration) : Converter::FromIteration(iteration)) {
        if (scored.score.cross_entropy > ceiling) continue;
        pareto.Add(scored.ids, scored.score);
      }
    }
    next = page->back().index() + 1;
  }
}

absl::Status FrontierMerger::Add(const Store& store, const v1::Job& job) {
  sources_.push_back({job.id(), job.spec().seed()});
  if (IsTerminal(job.state())) ++ended_;
  if (kind_ == v1::PARETO) {
    ParetoSet own;
    if (absl::Status status = AddHistory(store, job, own); !status.ok()) return status;
    Add(own.Points());
    return absl::OkStatus();
  }
  const absl::StatusOr<v1::Frontier> own = PenaltyFrontierOf(store, job);
  if (!own.ok()) return own.status();
  std::vector<ScoredPrompt> points;
  for (const v1::ScoredPrompt& point : own->points()) {
    points.push_back({Prompt(point.ids().begin(), point.ids().end()),
                      {.target = point.target(), .cross_entropy = point.cross_entropy()}});
  }
  Add(points);
  return absl::OkStatus();
}

void FrontierMerger::Add(const std::vector<ScoredPrompt>& points) {
  for (const ScoredPrompt& point : points) {
    if (kind_ == v1::PARETO) {
      pareto_.Add(point.ids, point.score);
    } else {
      penalties_.Add(point.ids, point.score);
    }
    found_[point.ids].emplace_back(point.score, static_cast<int>(sources_.size()) - 1);
  }
}

v1::ObjectiveFrontier FrontierMerger::Finish(const Converter& converter) const {
  v1::ObjectiveFrontier out;
  for (const ScoredPrompt& point : kind_ == v1::PARETO ? pareto_.Points() : penalties_.Points()) {
    v1::ObjectiveFrontier::Point* to = out.add_points();
    *to->mutable_prompt() = converter.ToScoredPrompt(point.ids, point.score);
    for (const auto& [score, source] : found_.at(point.ids)) {
      if (!(score == point.score)) continue;
      to->set_job(sources_[source].job);
      to->set_seed(sources_[source].seed);
      break;
    }
  }
  out.set_ended_jobs(ended_);
  return out;
}

}  // namespace epo
