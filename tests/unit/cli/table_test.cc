#include "client/cli/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::Frontier Frontier(int points) {
  v1::Frontier frontier;
  for (int i = 0; i < points; ++i) {
    auto* point = frontier.add_points();
    point->set_target(i);
    point->set_cross_entropy(i + 0.5F);
    point->set_text("p" + std::to_string(i));
  }
  return frontier;
}

TEST(TableTest, AlignsByDisplayWidth) {
  EXPECT_THAT(TableLines({{"name"}, {"n", true}, {"last"}},
                         {{"日本", "1", "x"}, {"e\u0301", "22", "yy"}}, 0, false),
              ElementsAre("name   n  last", "日本   1  x", "e\u0301     22  yy"));
}

TEST(TableTest, ClipsToTheWidth) {
  for (const auto& line : TableLines({{"a"}, {"b"}}, {{"xx", std::string(100, 'y')}}, 20, false)) {
    EXPECT_LE(DisplayWidth(line), 20);
  }
}

TEST(TableTest, OnlyTheHeaderIsStyled) {
  const auto lines = TableLines({{"a"}}, {{"x"}}, 0, true);
  EXPECT_THAT(lines, ElementsAre("\x1b[1ma\x1b[0m", "x"));
}

TEST(ScoreCellTest, OddValuesStayReadable) {
  EXPECT_EQ(ScoreCell(1.25F), "1.2500");
  EXPECT_EQ(ScoreCell(0), "0.0000");
  EXPECT_EQ(ScoreCell(1.5e-5F), "1.500e-05");
  EXPECT_EQ(ScoreCell(3e7F), "3.000e+07");
  EXPECT_EQ(ScoreCell(std::numeric_limits<float>::quiet_NaN()), "-");
}

TEST(FrontierLinesTest, QuotesTexts) {
  v1::Frontier frontier;
  auto* point = frontier.add_points();
  point->set_text("a\n\u202e\"");
  EXPECT_EQ(FrontierLines(frontier, 0, 0, false).back(),
            "0.0000              -  \"a\\n\\u{202e}\\\"\"");
}

TEST(FrontierLinesTest, ShowsBothEndsWhenThereIsNoRoomForAll) {
  const auto lines = FrontierLines(Frontier(100), 80, 8, false);
  ASSERT_EQ(lines.size(), 8);
  EXPECT_THAT(lines[1], HasSubstr("\"p0\""));
  EXPECT_THAT(lines[6], HasSubstr("\"p99\""));
  EXPECT_EQ(lines[7], "… and 94 more points");
}

TEST(FrontierLinesTest, ShowsAllWhenTheyFit) {
  EXPECT_EQ(FrontierLines(Frontier(7), 80, 8, false).size(), 8);
  EXPECT_EQ(FrontierLines(Frontier(100), 0, 0, false).size(), 101);
}

}  // namespace
}  // namespace epo::cli
