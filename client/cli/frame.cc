#include "client/cli/frame.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>

#include "client/cli/frontier_plot.h"
#include "client/cli/objective_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

// A header and as many points as most frontiers have.
constexpr int kLeastTableBesidePlot = 8;

const char* StateColor(v1::Job::State state) {
  switch (state) {
    case v1::Job::SUCCEEDED:
      return "32";
    case v1::Job::FAILED:
      return "31";
    case v1::Job::CANCELLED:
    case v1::Job::QUEUED:
    case v1::Job::PAUSED:
      return "33";
    default:
      return "36";
  }
}

std::string TitleLine(const View& view, absl::Time now, int width, bool color) {
  const std::string state = StateText(view.job, now);
  const std::string rest = absl::StrCat("  ", ObjectiveText(view.job.spec().objective()), "  ");
  const std::string plain = Escape(view.job.id()) + rest + state;
  if (DisplayWidth(plain) > width) return Clip(plain, width);
  return Styled(Escape(view.job.id()), "1", color) + rest +
         Styled(state, StateColor(view.job.state()), color);
}

std::string SpeedText(const View& view) {
  const auto speed = view.progress.EvaluationsPerSecond();
  if (!speed) return "";
  return absl::StrFormat("%.*f evaluations/s", *speed < 10 ? 1 : 0, *speed);
}

std::string RemainingText(const View& view, absl::Time now) {
  const auto remaining = view.progress.Remaining(now);
  return absl::StrCat("ETA ", remaining ? DurationText(*remaining) : "--");
}

std::string BarLine(const View& view, absl::Time now, int width, bool color) {
  const std::string speed = SpeedText(view);
  std::string rest = absl::StrCat("  ", RemainingText(view, now));
  if (!speed.empty()) absl::StrAppend(&rest, "  ", speed);
  return ProgressBar(view.progress.done(), view.progress.total(), rest, width, color);
}

}  // namespace

std::string ProgressBar(int64_t done, int64_t total, const std::string& rest, int width,
                        bool color) {
  const std::string step = absl::StrCat(" ", done, "/", total);
  std::string numbers = step + rest;
  constexpr int kLeastBar = 8;
  constexpr int kMostBar = 40;
  if (DisplayWidth(numbers) + kLeastBar > width) numbers = step;
  const int cells = std::min(kMostBar, width - DisplayWidth(numbers));
  if (cells < kLeastBar) return Clip(numbers.substr(1), width);
  const int64_t full = std::clamp<int64_t>(cells * done / std::max<int64_t>(total, 1), 0, cells);
  std::string filled;
  std::string empty;
  for (int i = 0; i < cells; ++i) (i < full ? filled : empty) += i < full ? "█" : "░";
  return Styled(filled, "36", color) + Styled(empty, "2", color) + numbers;
}

std::string LostLine(const View::Lost& lost, absl::Time now, int width, bool color) {
  return Styled(Clip(absl::StrCat("connection lost ", DurationText(now - lost.since),
                                  " ago, trying again: ", Escape(lost.reason)),
                     width),
                "33", color);
}

std::vector<std::string> FrameLines(const View& view, bool with_frontier, absl::Time now,
                                    TerminalSize size, bool color, bool utf8) {
  // The last column stays free: writing into it leaves the cursor in a state that terminals
  // disagree on.
  const int width = std::max(1, size.columns - 1);
  const int height = std::max(1, size.rows - 1);
  std::vector<std::string> lines = {TitleLine(view, now, width, color),
                                    BarLine(view, now, width, color)};
  if (view.lost) lines.push_back(LostLine(*view.lost, now, width, color));
  // A table of less than a header and a point is not worth its lines.
  int left = height - static_cast<int>(lines.size()) - 1;
  if (with_frontier && left - kPlotLines - 1 >= kLeastTableBesidePlot) {
    const auto plot = FrontierPlotLines(view.frontier, width, utf8, color);
    if (!plot.empty()) {
      lines.emplace_back();
      lines.insert(lines.end(), plot.begin(), plot.end());
      left -= kPlotLines + 1;
    }
  }
  if (with_frontier && left >= 2 && view.frontier.points_size() > 0) {
    lines.emplace_back();
    for (std::string& line : FrontierLines(view.frontier, width, left, color)) {
      lines.push_back(std::move(line));
    }
  }
  if (static_cast<int>(lines.size()) > height) lines.erase(lines.begin(), lines.end() - height);
  return lines;
}

std::string PlainLine(const View& view, absl::Time now) {
  std::vector<std::string> parts = {
      absl::StrCat("step ", view.progress.done(), "/", view.progress.total())};
  const auto& points = view.frontier.points();
  if (!points.empty()) {
    const auto best =
        std::max_element(points.begin(), points.end(),
                         [](const auto& a, const auto& b) { return a.target() < b.target(); });
    parts.push_back(absl::StrCat("best target ", ScoreCell(best->target()), " at cross-entropy ",
                                 CrossEntropyCell(*best)));
    parts.push_back(
        absl::StrCat(points.size(), points.size() == 1 ? " point" : " points", " on the frontier"));
  }
  parts.push_back(RemainingText(view, now));
  if (const std::string speed = SpeedText(view); !speed.empty()) parts.push_back(speed);
  return absl::StrJoin(parts, ", ");
}

std::string EndLine(const v1::Job& job) {
  std::string line =
      absl::StrCat(Escape(job.id()), " ", v1::Job::State_Name(job.state()), " after ",
                   job.completed_iterations(), "/", job.spec().iterations(), " steps");
  if (job.has_start_time() && job.has_end_time()) {
    absl::StrAppend(&line, " in ", DurationText(ToTime(job.end_time()) - ToTime(job.start_time())));
  }
  absl::StrAppend(&line, ", ", job.evaluations(), " evaluations");
  if (job.has_error()) absl::StrAppend(&line, ": ", Escape(job.error().message()));
  return line;
}

std::string EmptyFrontierLine(const v1::Job& job) {
  const v1::Constraints& constraints = job.spec().constraints();
  // An error says why itself, wherever it is shown.
  const std::string why =
      job.has_error()                   ? ""
      : job.completed_iterations() == 0 ? ": no step is done"
      : constraints.has_max_cross_entropy()
          ? absl::StrCat(": no prompt has a cross-entropy of at most ",
                         constraints.max_cross_entropy(), " (--max-cross-entropy)")
          : "";
  return absl::StrCat("the frontier of ", Escape(job.id()), " is empty", why);
}

}  // namespace epo::cli
