#include "client/cli/frontier_plot.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

#include "client/cli/table.h"
#include "client/cli/terminal.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

constexpr int kMostCanvasColumns = 60;

struct Point {
  float x, y;
};

struct Range {
  float low, high;

  // Where in 0..cells - 1 a value lies; in the middle when all values are one.
  int CellOf(float value, int cells) const {
    const double share =
        high > low ? (static_cast<double>(value) - low) / (static_cast<double>(high) - low) : 0.5;
    return static_cast<int>(std::lround(share * (cells - 1)));
  }
};

Range RangeOf(const std::vector<Point>& points, float Point::*member) {
  const auto [low, high] = std::minmax_element(
      points.begin(), points.end(),
      [member](const Point& a, const Point& b) { return a.*member < b.*member; });
  return {*low.*member, *high.*member};
}

// The character of a cell whose dots are set: row r, column c is bit 2 * r + c.
std::string Braille(unsigned dots) {
  // Unicode numbers the dots down the left column, then the right one, and then the lowest row.
  constexpr unsigned kBits[8] = {0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80};
  unsigned code = 0x2800;
  for (int i = 0; i < 8; ++i) code |= dots >> i & 1 ? kBits[i] : 0;
  // In UTF-8: the code is below 0x2900.
  return {'\xE2', static_cast<char>(0x80 | (code >> 6 & 0x3F)),
          static_cast<char>(0x80 | (code & 0x3F))};
}

// The canvas with a dot at each point, from the top line to the lowest.
std::vector<std::string> CanvasLines(const std::vector<Point>& points, Range x, Range y,
                                     int columns, int rows, bool utf8) {
  const int across = utf8 ? 2 : 1;
  const int down = utf8 ? 4 : 1;
  std::vector<unsigned> cells(static_cast<size_t>(columns) * rows, 0);
  for (const Point& point : points) {
    const int dot_x = x.CellOf(point.x, columns * across);
    const int dot_y = rows * down - 1 - y.CellOf(point.y, rows * down);
    cells[static_cast<size_t>(dot_y / down) * columns + dot_x / across] |=
        1u << (dot_y % down * 2 + dot_x % across);
  }
  std::vector<std::string> lines;
  for (int row = 0; row < rows; ++row) {
    std::string& line = lines.emplace_back();
    for (int column = 0; column < columns; ++column) {
      const unsigned dots = cells[static_cast<size_t>(row) * columns + column];
      line += dots == 0 ? " " : utf8 ? Braille(dots) : "*";
    }
  }
  return lines;
}

}  // namespace

std::vector<std::string> FrontierPlotLines(const v1::Frontier& frontier, int width, bool utf8,
                                           bool color) {
  std::vector<Point> points;
  for (const v1::ScoredPrompt& point : frontier.points()) {
    if (point.has_cross_entropy() && std::isfinite(point.cross_entropy()) &&
        std::isfinite(point.target())) {
      points.push_back({point.cross_entropy(), point.target()});
    }
  }
  if (points.size() < 2 || width < kLeastPlotWidth) return {};
  const Range x = RangeOf(points, &Point::x);
  const Range y = RangeOf(points, &Point::y);
  const std::string top = ScoreCell(y.high);
  const std::string bottom = ScoreCell(y.low);
  const std::string left = ScoreCell(x.low);
  const std::string right = ScoreCell(x.high);
  constexpr char kX[] = "cross-entropy";
  constexpr char kY[] = "target";
  const int gutter = std::max({DisplayWidth(top), DisplayWidth(bottom), DisplayWidth(kY)}) + 1;
  const int columns = std::min(kMostCanvasColumns, width - gutter);
  // Numbers too long to leave a canvas that its own labels fit below.
  const int between = columns - DisplayWidth(left) - DisplayWidth(right) - DisplayWidth(kX);
  if (between < 2) return {};
  constexpr int kRows = kPlotLines - 1;
  std::vector<std::string> lines = CanvasLines(points, x, y, columns, kRows, utf8);
  for (int row = 0; row < kRows; ++row) {
    const std::string& label = row == 0           ? top
                               : row == kRows - 1 ? bottom
                               : row == kRows / 2 ? kY
                                                  : "";
    lines[row] = absl::StrCat(Styled(PadLeft(label, gutter - 1), "2", color), " ",
                              Styled(lines[row], "1;36", color));
  }
  lines.push_back(Styled(absl::StrCat(std::string(gutter, ' '), left, std::string(between / 2, ' '),
                                      kX, std::string(between - between / 2, ' '), right),
                         "2", color));
  return lines;
}

}  // namespace epo::cli
