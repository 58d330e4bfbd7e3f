#include "client/cli/sweep_text.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/cli/facts.h"
#include "client/cli/json.h"
#include "client/cli/objective_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

constexpr std::string_view kIdPrefix = "sweep-";
constexpr absl::Duration kWindow = absl::Minutes(2);

std::string Plural(int count, const char* what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

const char* StateColor(v1::Sweep::State state) {
  switch (state) {
    case v1::Sweep::SUCCEEDED:
      return "32";
    case v1::Sweep::FAILED:
      return "31";
    case v1::Sweep::RUNNING:
      return "36";
    default:
      return "33";
  }
}

std::string SpeedText(const SweepPace& pace) {
  const auto speed = pace.EvaluationsPerSecond();
  if (!speed) return "";
  return absl::StrFormat("%.*f evaluations/s", *speed < 10 ? 1 : 0, *speed);
}

std::string RemainingText(const SweepPace& pace, absl::Time now) {
  const auto remaining = pace.Remaining(now);
  return absl::StrCat("ETA ", remaining ? DurationText(*remaining) : "--");
}

std::string StepText(const v1::Sweep& sweep) {
  return absl::StrCat(sweep.completed_iterations(), "/", sweep.total_iterations());
}

}  // namespace

bool IsSweepId(std::string_view id) { return id.substr(0, kIdPrefix.size()) == kIdPrefix; }

std::string SweepSizeText(const v1::Sweep& sweep) {
  return absl::StrCat(Plural(sweep.objective_count(), "objective"), " x ",
                      Plural(sweep.seed_count(), "seed"));
}

std::string JobCountsText(const v1::JobCounts& jobs) {
  std::vector<std::string> parts;
  for (const auto& [count, state] : {std::pair(jobs.running(), "running"),
                                     {jobs.queued(), "queued"},
                                     {jobs.paused(), "paused"},
                                     {jobs.succeeded(), "succeeded"},
                                     {jobs.failed(), "failed"},
                                     {jobs.cancelled(), "cancelled"}}) {
    if (count > 0) parts.push_back(absl::StrCat(count, " ", state));
  }
  return absl::StrJoin(parts, ", ");
}

int EndedJobs(const v1::Sweep& sweep) {
  return sweep.jobs().succeeded() + sweep.jobs().failed() + sweep.jobs().cancelled();
}

int AllJobs(const v1::Sweep& sweep) { return sweep.objective_count() * sweep.seed_count(); }

std::vector<std::string> SweepLines(const v1::Sweep& sweep) { return FactLines(SweepFacts(sweep)); }

std::string SweepEndLine(const v1::Sweep& sweep) {
  std::string line =
      absl::StrCat(Escape(sweep.id()), " ", v1::Sweep::State_Name(sweep.state()), " after ",
                   StepText(sweep), " steps of ", Plural(AllJobs(sweep), "job"));
  if (sweep.has_start_time() && sweep.has_end_time()) {
    absl::StrAppend(&line, " in ",
                    DurationText(ToTime(sweep.end_time()) - ToTime(sweep.start_time())));
  }
  return absl::StrCat(line, ", ", sweep.evaluations(),
                      " evaluations: ", JobCountsText(sweep.jobs()));
}

void SweepPace::Add(const v1::Sweep& sweep, absl::Time now) {
  total_ = sweep.total_iterations();
  if (!samples_.empty() && samples_.back().done == sweep.completed_iterations()) return;
  samples_.push_back({now, sweep.completed_iterations(), sweep.evaluations()});
  while (samples_.size() > 2 && now - samples_.front().time > kWindow) samples_.pop_front();
}

std::optional<double> SweepPace::EvaluationsPerSecond() const {
  if (samples_.size() < 2) return std::nullopt;
  const double seconds = absl::ToDoubleSeconds(samples_.back().time - samples_.front().time);
  if (seconds <= 0) return std::nullopt;
  return static_cast<double>(samples_.back().evaluations - samples_.front().evaluations) / seconds;
}

std::optional<absl::Duration> SweepPace::Remaining(absl::Time now) const {
  if (samples_.size() < 2) return std::nullopt;
  const absl::Duration step = (samples_.back().time - samples_.front().time) /
                              (samples_.back().done - samples_.front().done);
  return std::max(absl::ZeroDuration(),
                  (total_ - samples_.back().done) * step - (now - samples_.back().time));
}

std::vector<std::string> SweepFrameLines(const SweepView& view, absl::Time now, TerminalSize size,
                                         bool color) {
  // As for a job's frame: the last column stays free.
  const int width = std::max(1, size.columns - 1);
  const size_t height = std::max(1, size.rows - 1);
  const v1::Sweep& sweep = view.sweep;
  const std::string& state = v1::Sweep::State_Name(sweep.state());
  const std::string rest = absl::StrCat("  ", SweepSizeText(sweep), "  ");
  const std::string plain = Escape(sweep.id()) + rest + state;
  std::string title = DisplayWidth(plain) > width
                          ? Clip(plain, width)
                          : Styled(Escape(sweep.id()), "1", color) + rest +
                                Styled(state, StateColor(sweep.state()), color);
  const std::string speed = SpeedText(view.pace);
  std::vector<std::string> lines = {
      std::move(title),
      ProgressBar(
          sweep.completed_iterations(), sweep.total_iterations(),
          absl::StrCat("  ", RemainingText(view.pace, now), speed.empty() ? "" : "  ", speed),
          width, color),
      Clip(absl::StrCat("jobs: ", JobCountsText(sweep.jobs())), width)};
  if (view.lost) lines.push_back(LostLine(*view.lost, now, width, color));
  if (lines.size() > height) lines.erase(lines.begin(), lines.end() - height);
  return lines;
}

std::string SweepPlainLine(const SweepView& view, absl::Time now) {
  std::vector<std::string> parts = {
      absl::StrCat("step ", StepText(view.sweep)),
      absl::StrCat(EndedJobs(view.sweep), "/", AllJobs(view.sweep), " jobs ended"),
      RemainingText(view.pace, now)};
  if (std::string speed = SpeedText(view.pace); !speed.empty()) parts.push_back(std::move(speed));
  return absl::StrJoin(parts, ", ");
}

std::vector<std::string> SweepPointRow(const v1::ObjectiveFrontier& objective,
                                       const v1::ObjectiveFrontier::Point& point) {
  return {absl::StrCat(objective.objective_index()),
          ObjectiveText(objective.objective()),
          absl::StrCat(point.seed()),
          ScoreCell(point.prompt().target()),
          CrossEntropyCell(point.prompt()),
          Quote(point.prompt().text())};
}

nlohmann::ordered_json SweepPointJson(const v1::ObjectiveFrontier& objective,
                                      const v1::ObjectiveFrontier::Point& point) {
  nlohmann::ordered_json row = {{"objective_index", objective.objective_index()},
                                {"objective", ToJson(objective.objective())},
                                {"job", point.job()},
                                {"seed", point.seed()}};
  row.update(ToJson(point.prompt()));
  return row;
}

}  // namespace epo::cli
