#include "client/cli/frontier_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <utility>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

v1::Frontier FrontierOf(const std::vector<std::pair<float, float>>& points) {
  v1::Frontier frontier;
  for (const auto& [x, y] : points) {
    v1::ScoredPrompt& point = *frontier.add_points();
    point.set_cross_entropy(x);
    point.set_target(y);
  }
  return frontier;
}

TEST(FrontierPlotTest, DrawsAnAsteriskAPoint) {
  const auto lines =
      FrontierPlotLines(FrontierOf({{3, -0.5}, {4, 0}, {5, 1.5}, {13, 2}}), 50, false, false);
  // 42 columns: 0, 4.1, 8.2 and 41; 6 rows: 0, 1, 4 and 5 from below.
  EXPECT_THAT(lines, ElementsAre(" 2.0000                                          *",
                                 "                *                                 ",
                                 "                                                  ",
                                 " target                                           ",
                                 "            *                                     ",
                                 "-0.5000 *                                         ",
                                 "        3.0000        cross-entropy        13.0000"));
}

TEST(FrontierPlotTest, DrawsADotAPointInUtf8) {
  const auto lines = FrontierPlotLines(FrontierOf({{0, 0}, {1, 1}}), 50, true, false);
  ASSERT_THAT(lines, SizeIs(kPlotLines));
  // The dots of the corners.
  EXPECT_EQ(lines[0], "1.0000" + std::string(43, ' ') + "⠈");
  EXPECT_EQ(lines[5], "0.0000 ⡀" + std::string(42, ' '));
}

TEST(FrontierPlotTest, DotsOfOneCellAreOneCharacter) {
  // 42 columns make 84 dots and 6 rows 24: a step each, so that the first cell has all of its own.
  std::vector<std::pair<float, float>> points = {{83, 23}};
  for (int x = 0; x < 2; ++x) {
    for (int y = 0; y < 4; ++y) points.emplace_back(x, y);
  }
  const auto lines = FrontierPlotLines(FrontierOf(points), 50, true, false);
  EXPECT_EQ(lines[5], " 0.0000 ⣿" + std::string(41, ' '));
}

TEST(FrontierPlotTest, FitsEveryWidth) {
  const auto frontier = FrontierOf({{1e-9F, -3e30F}, {2, -0.1F}, {5e8F, 3e38F}});
  for (int width = 0; width < 200; ++width) {
    for (const bool utf8 : {false, true}) {
      const auto lines = FrontierPlotLines(frontier, width, utf8, false);
      EXPECT_EQ(lines.size(), width < kLeastPlotWidth ? 0 : kPlotLines) << width;
      for (const std::string& line : lines) EXPECT_LE(DisplayWidth(line), width) << line;
    }
  }
}

TEST(FrontierPlotTest, LeavesOutWhatHasNoPlace) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  v1::Frontier frontier = FrontierOf({{1, 1}, {kNan, 1}, {2, -kInfinity}});
  frontier.add_points()->set_target(7);
  EXPECT_THAT(FrontierPlotLines(frontier, 80, false, false), IsEmpty());
  *frontier.add_points() = FrontierOf({{2, 2}}).points(0);
  const auto lines = FrontierPlotLines(frontier, 80, false, false);
  ASSERT_THAT(lines, SizeIs(kPlotLines));
  EXPECT_EQ(lines[0].find("2.0000 "), 0);
  EXPECT_EQ(lines[5].find("1.0000 "), 0);
  EXPECT_THAT(FrontierPlotLines(v1::Frontier(), 80, true, false), IsEmpty());
}

TEST(FrontierPlotTest, EqualScoresLieInTheMiddle) {
  const auto lines = FrontierPlotLines(FrontierOf({{4, 1}, {4, 1}}), 50, false, false);
  EXPECT_EQ(lines[2].find('*'), 7 + 21) << lines[2];
}

TEST(FrontierPlotTest, ColoursOnlyWhenAsked) {
  const auto frontier = FrontierOf({{0, 0}, {1, 1}});
  EXPECT_NE(FrontierPlotLines(frontier, 80, true, true)[0].find('\x1b'), std::string::npos);
  for (const std::string& line : FrontierPlotLines(frontier, 80, true, false)) {
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
}

}  // namespace
}  // namespace epo::cli
