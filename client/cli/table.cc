#include "client/cli/table.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <cmath>

#include "client/cli/facts.h"
#include "client/cli/objective_text.h"
#include "client/cli/terminal.h"
#include "client/cli/text.h"
#include "client/cli/time.h"

namespace epo::cli {
namespace {

std::vector<std::string> PointRow(const v1::ScoredPrompt& point, bool marked) {
  std::vector<std::string> row = {ScoreCell(point.target()), CrossEntropyCell(point)};
  if (marked) row.emplace_back(point.round_trips() ? "yes" : "no");
  row.push_back(Quote(point.text()));
  return row;
}

// `count` of the indices 0..size-1, spread evenly, both ends included.
std::vector<int> EvenChoice(int size, int count) {
  std::vector<int> indices;
  indices.reserve(count);
  for (int i = 0; i < count; ++i) indices.push_back(count == 1 ? 0 : i * (size - 1) / (count - 1));
  return indices;
}

}  // namespace

std::vector<std::string> TableLines(const std::vector<Column>& columns,
                                    const std::vector<std::vector<std::string>>& rows, int width,
                                    bool color) {
  std::vector<int> widths;
  for (size_t c = 0; c < columns.size(); ++c) {
    int widest = DisplayWidth(columns[c].title);
    for (const auto& row : rows) widest = std::max(widest, DisplayWidth(row[c]));
    widths.push_back(widest);
  }
  const auto line = [&](const auto& cell) {
    std::string text;
    for (size_t c = 0; c < columns.size(); ++c) {
      if (c > 0) text += "  ";
      const bool last = c + 1 == columns.size();
      text += columns[c].right ? PadLeft(cell(c), widths[c])
              : last           ? cell(c)
                               : PadRight(cell(c), widths[c]);
    }
    return width > 0 ? Clip(text, width) : text;
  };
  std::vector<std::string> lines = {
      Styled(line([&](size_t c) { return columns[c].title; }), "1", color)};
  for (const auto& row : rows) lines.push_back(line([&](size_t c) { return row[c]; }));
  return lines;
}

std::string JoinLines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  return text;
}

std::string ScoreCell(float value) {
  if (!std::isfinite(value)) return "-";
  // Fixed point lines the decimals up; values that it would round away or blow up are rare enough
  // to stand out.
  const float size = std::abs(value);
  return size != 0 && (size < 1e-3F || size >= 1e6F) ? absl::StrFormat("%.3e", value)
                                                     : absl::StrFormat("%.4f", value);
}

std::string CrossEntropyCell(const v1::ScoredPrompt& prompt) {
  return prompt.has_cross_entropy() ? ScoreCell(prompt.cross_entropy()) : "-";
}

std::vector<std::string> FrontierLines(const v1::Frontier& frontier, int width, int height,
                                       bool color) {
  const int size = frontier.points_size();
  const bool all = height <= 0 || size + 1 <= height;
  const int shown = all ? size : std::max(0, height - 2);
  // Marked only where a text, given again, would be another prompt.
  const bool marked = std::any_of(frontier.points().begin(), frontier.points().end(),
                                  [](const auto& point) { return !point.round_trips(); });
  std::vector<Column> columns = {{"target", true}, {"cross-entropy", true}};
  if (marked) columns.push_back({"round-trips"});
  columns.push_back({"prompt"});
  std::vector<std::vector<std::string>> rows;
  for (const int i : EvenChoice(size, shown)) rows.push_back(PointRow(frontier.points(i), marked));
  std::vector<std::string> lines = TableLines(columns, rows, width, color);
  if (!all && height >= 2) {
    lines.push_back(
        Styled(Clip(absl::StrCat("… and ", size - shown, " more points"), width), "2", color));
  }
  return lines;
}

std::string ConstraintsText(const v1::Constraints& constraints) {
  std::vector<std::string> parts;
  if (constraints.ascii_only()) parts.emplace_back("ASCII");
  if (constraints.decodable_only()) parts.emplace_back("decodable");
  if (constraints.banned_ids_size() > 0) {
    parts.push_back(absl::StrCat("without ", constraints.banned_ids_size(), " tokens"));
  }
  if (!constraints.banned_token_regex().empty()) {
    parts.push_back(absl::StrCat("without tokens like ", Quote(constraints.banned_token_regex())));
  }
  for (const std::string& text : constraints.banned_texts()) {
    parts.push_back(absl::StrCat("without ", Quote(text)));
  }
  if (constraints.retokenizable()) parts.emplace_back("retokenizable");
  if (constraints.frozen_positions_size() > 0) {
    parts.push_back(absl::StrCat("frozen at ", absl::StrJoin(constraints.frozen_positions(), ",")));
  }
  if (constraints.has_max_cross_entropy()) {
    parts.push_back(absl::StrCat("cross-entropy at most ", constraints.max_cross_entropy()));
  }
  return absl::StrJoin(parts, ", ");
}

std::string QueueText(const v1::Job& job, absl::Time now) {
  if (!job.waits_for().empty()) return "held";
  if (job.queue_position() == 0) return "";
  std::string text = absl::StrCat(job.queue_position());
  if (job.has_estimated_start_time()) {
    absl::StrAppend(&text, ", in ", DurationText(ToTime(job.estimated_start_time()) - now));
  }
  return text;
}

std::string StateText(const v1::Job& job, absl::Time now) {
  if (!job.waits_for().empty()) {
    return absl::StrCat(v1::Job::State_Name(job.state()), ", waits for ", Escape(job.waits_for()));
  }
  const std::string queue = QueueText(job, now);
  return absl::StrCat(v1::Job::State_Name(job.state()), queue.empty() ? "" : ", place ", queue);
}

std::vector<std::string> JobLines(const v1::Job& job) { return FactLines(JobFacts(job)); }

}  // namespace epo::cli
