#include "client/cli/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "client/cli/text.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

View RunningView(int points) {
  View view;
  view.job.set_id("j1");
  view.job.set_state(v1::Job::RUNNING);
  view.job.mutable_spec()->mutable_objective()->mutable_neuron()->set_layer(8);
  view.job.mutable_spec()->set_iterations(300);
  view.job.set_completed_iterations(150);
  view.job.set_evaluations(150 * 264);
  view.job.set_run_seconds(600);
  view.progress.Found(view.job);
  for (int i = 0; i < points; ++i) {
    auto* point = view.frontier.add_points();
    point->set_target(i);
    point->set_cross_entropy(i + 1);
    point->set_text(
        "日本語 \u202e \n and a long tail of text that no narrow terminal has room for");
  }
  return view;
}

TEST(FrameTest, ShowsJobBarAndFrontier) {
  const auto lines = FrameLines(RunningView(2), true, kNow, {80, 19}, false, true);
  ASSERT_EQ(lines.size(), 6);
  EXPECT_EQ(lines[0], "j1  layer 8 neuron 0  RUNNING");
  EXPECT_EQ(lines[1],
            "████████████████████░░░░░░░░░░░░░░░░░░░░ 150/300  ETA 10m00s  66 evaluations/s");
  EXPECT_EQ(lines[2], "");
  EXPECT_THAT(lines[3], HasSubstr("cross-entropy"));
  EXPECT_THAT(lines[4], HasSubstr("\"日本語 \\u{202e} \\n and"));
}

TEST(FrameTest, FitsEveryTerminal) {
  View view = RunningView(200);
  view.lost = View::Lost{"Connection refused by a server with a long story to tell about it", kNow};
  for (int columns = 1; columns < 160; columns += 3) {
    for (int rows = 1; rows < 50; ++rows) {
      const auto lines = FrameLines(view, true, kNow, {columns, rows}, false, true);
      EXPECT_LT(lines.size(), std::max(rows, 2)) << columns << "x" << rows;
      for (const std::string& line : lines) {
        EXPECT_LT(DisplayWidth(line), std::max(columns, 2))
            << columns << "x" << rows << ": " << line;
        EXPECT_EQ(line.find_first_of("\x1b\n\r"), std::string::npos);
      }
    }
  }
}

TEST(FrameTest, PlotsTheFrontierWhereThereIsRoomBesideTheTable) {
  const auto lines = FrameLines(RunningView(12), true, kNow, {80, 20}, false, true);
  ASSERT_EQ(lines.size(), 19);
  EXPECT_EQ(lines[2], "");
  EXPECT_THAT(lines[3], HasSubstr("⠈"));
  EXPECT_THAT(lines[9], HasSubstr("1.0000"));
  EXPECT_THAT(lines[9], HasSubstr("cross-entropy"));
  EXPECT_EQ(lines[10], "");
  EXPECT_THAT(lines[11], HasSubstr("prompt"));
  EXPECT_THAT(lines[18], HasSubstr("more"));
  const auto plots = [](int points, TerminalSize size) {
    return std::ranges::count_if(
        FrameLines(RunningView(points), true, kNow, size, false, false),
        [](const std::string& line) { return line.find('*') != std::string::npos; });
  };
  EXPECT_EQ(plots(12, {80, 20}), 6);
  EXPECT_EQ(plots(12, {80, 19}), 0);
  EXPECT_EQ(plots(12, {51, 20}), 6);
  EXPECT_EQ(plots(12, {50, 20}), 0);
  EXPECT_EQ(plots(1, {80, 40}), 0);
  EXPECT_EQ(FrameLines(RunningView(12), false, kNow, {80, 40}, false, true).size(), 2);
}

TEST(FrameTest, ColoursOnlyWhenAsked) {
  const auto lines = FrameLines(RunningView(1), true, kNow, {80, 24}, true, true);
  EXPECT_THAT(lines[1], HasSubstr("\x1b["));
  for (const std::string& line : FrameLines(RunningView(1), true, kNow, {80, 24}, false, true)) {
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
}

TEST(FrameTest, WithoutFrontierTwoLines) {
  EXPECT_EQ(FrameLines(RunningView(5), false, kNow, {80, 24}, false, true).size(), 2);
}

TEST(FrameTest, SaysThatTheConnectionIsLost) {
  View view = RunningView(0);
  view.lost = View::Lost{"Connection refused", kNow - absl::Seconds(7)};
  EXPECT_EQ(FrameLines(view, true, kNow, {80, 24}, false, true)[2],
            "connection lost 7s ago, trying again: Connection refused");
}

TEST(FrameTest, TellsThePlaceInTheQueue) {
  View view = RunningView(0);
  view.job.set_state(v1::Job::QUEUED);
  view.job.set_queue_position(3);
  EXPECT_EQ(FrameLines(view, true, kNow, {80, 24}, false, true)[0],
            "j1  layer 8 neuron 0  QUEUED, place 3");
  view.job.mutable_estimated_start_time()->set_seconds(absl::ToUnixSeconds(kNow) + 250);
  EXPECT_EQ(FrameLines(view, true, kNow, {80, 24}, false, true)[0],
            "j1  layer 8 neuron 0  QUEUED, place 3, in 4m10s");
}

TEST(PlainLineTest, NamesTheBestPoint) {
  EXPECT_EQ(PlainLine(RunningView(3), kNow),
            "step 150/300, best target 2.0000 at cross-entropy 3.0000, 3 points on the frontier, "
            "ETA 10m00s, 66 evaluations/s");
}

TEST(EmptyFrontierLineTest, SaysWhy) {
  v1::Job job = RunningView(0).job;
  job.set_completed_iterations(0);
  EXPECT_EQ(EmptyFrontierLine(job), "the frontier of j1 is empty: no step is done");
  job.set_completed_iterations(1);
  EXPECT_EQ(EmptyFrontierLine(job), "the frontier of j1 is empty");
  job.mutable_spec()->mutable_constraints()->set_max_cross_entropy(0.5);
  EXPECT_EQ(EmptyFrontierLine(job),
            "the frontier of j1 is empty: no prompt has a cross-entropy of at most 0.5 "
            "(--max-cross-entropy)");
}

TEST(EndLineTest, SaysHowItEnded) {
  v1::Job job = RunningView(0).job;
  job.set_state(v1::Job::FAILED);
  job.mutable_start_time()->set_seconds(100);
  job.mutable_end_time()->set_seconds(223);
  job.mutable_error()->set_message("out of\nmemory");
  EXPECT_EQ(EndLine(job),
            "j1 FAILED after 150/300 steps in 2m03s, 39600 evaluations: out of\\nmemory");
}

}  // namespace
}  // namespace epo::cli
