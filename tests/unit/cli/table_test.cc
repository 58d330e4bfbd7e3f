#include "client/cli/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "client/cli/facts.h"
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
    point->set_round_trips(true);
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
  point->set_round_trips(true);
  EXPECT_EQ(FrontierLines(frontier, 0, 0, false).back(),
            "0.0000              -  \"a\\n\\u{202e}\\\"\"");
}

TEST(FrontierLinesTest, TellsWhatDoesNotRoundTrip) {
  v1::Frontier frontier = Frontier(2);
  EXPECT_THAT(FrontierLines(frontier, 0, 0, false),
              ElementsAre("target  cross-entropy  prompt", "0.0000         0.5000  \"p0\"",
                          "1.0000         1.5000  \"p1\""));
  frontier.mutable_points(1)->set_round_trips(false);
  EXPECT_THAT(FrontierLines(frontier, 0, 0, false),
              ElementsAre("target  cross-entropy  round-trips  prompt",
                          "0.0000         0.5000  yes          \"p0\"",
                          "1.0000         1.5000  no           \"p1\""));
}

TEST(ConstraintsTextTest, SaysWhatIsForbidden) {
  v1::Constraints constraints;
  EXPECT_EQ(ConstraintsText(constraints), "");
  constraints.set_ascii_only(true);
  constraints.set_decodable_only(true);
  constraints.add_banned_ids(5);
  constraints.set_banned_token_regex("\n+");
  constraints.add_banned_texts("a\nb");
  constraints.set_retokenizable(true);
  constraints.add_frozen_positions(0);
  constraints.add_frozen_positions(2);
  constraints.set_max_cross_entropy(4.5);
  EXPECT_EQ(ConstraintsText(constraints),
            "ASCII, decodable, without 1 tokens, without tokens like \"\\n+\", without "
            "\"a\\nb\", retokenizable, frozen at 0,2, cross-entropy at most 4.5");
}

// The facts in `facts` under `name`, one a line.
std::string FactOf(const Facts& facts, std::string_view name) {
  std::string all;
  for (const auto& [key, value] : facts) {
    if (key == name) all += value + "\n";
  }
  return all;
}

TEST(FactsTest, TellWhatOfASearchIsNotAsByDefault) {
  v1::Job job;
  v1::JobSpec& spec = *job.mutable_spec();
  for (const char* name : {"context", "context 0", "across", "fluency", "starts from", "history",
                           "term scales", "constraints"}) {
    EXPECT_EQ(FactOf(JobFacts(job), name), "") << name;
  }
  v1::Context& context = *spec.add_contexts();
  context.set_bos(true);
  context.mutable_prefix()->set_text("a\n");
  EXPECT_EQ(FactOf(JobFacts(job), "context"), "BOS \"a\\n\" PROMPT\n");
  spec.add_contexts()->mutable_suffix()->mutable_ids()->add_ids(3);
  spec.mutable_contexts(1)->mutable_suffix()->mutable_ids()->add_ids(4);
  spec.set_across_contexts(v1::MIN);
  spec.set_fluency_window(v1::PROMPT_AND_SUFFIX);
  spec.set_history(v1::FRONTIER);
  for (int i = 0; i < 5; ++i) spec.add_initial_prompts()->set_text("p" + std::to_string(i));
  v1::Sweep sweep;
  *sweep.mutable_spec()->mutable_job() = spec;
  for (const Facts& facts : {JobFacts(job), SweepFacts(sweep)}) {
    EXPECT_EQ(FactOf(facts, "context 1"), "PROMPT ids 3,4\n");
    EXPECT_EQ(FactOf(facts, "across"), "the least of the contexts\n");
    EXPECT_EQ(FactOf(facts, "fluency"), "of prompt and suffix\n");
    EXPECT_EQ(FactOf(facts, "history"), "survivors and frontiers only\n");
    EXPECT_EQ(FactOf(facts, "starts from"), "\"p0\", \"p1\", \"p2\", 2 more\n");
  }
  spec.mutable_objective()->add_terms()->set_measured_scale(true);
  EXPECT_EQ(FactOf(JobFacts(job), "term scales"), "measured before the first step\n");
  job.add_term_scales(0.25);
  job.add_term_scales(1);
  EXPECT_EQ(FactOf(JobFacts(job), "term scales"), "0.25, 1\n");
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
