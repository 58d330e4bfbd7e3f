// Sweeps on the command line: their arguments, texts and tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "client/cli/csv.h"
#include "client/cli/json.h"
#include "client/cli/sweep_arguments.h"
#include "client/cli/sweep_text.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string NeuronsOf(std::string_view text) {
  const auto ranges = ParseNeurons(text);
  if (!ranges.ok()) return std::string(ranges.status().message());
  std::string out;
  for (const v1::NeuronRange& range : *ranges) {
    out += std::to_string(range.layer()) + ":" + std::to_string(range.first()) + "-" +
           std::to_string(range.last()) + " ";
  }
  return out;
}

TEST(SweepArgumentsTest, NeuronsAreALayerAndRanges) {
  EXPECT_EQ(NeuronsOf("8:0-63"), "8:0-63 ");
  EXPECT_EQ(NeuronsOf("8:5"), "8:5-5 ");
  EXPECT_EQ(NeuronsOf("8:0-3,7,9-9"), "8:0-3 8:7-7 8:9-9 ");
  for (const char* bad : {"", "8", "8:", "8:5-", "8:-5", "x:1", "8:3-1", "8:1,,2", "8:1-2-3",
                          "8:1:2", "8:99999999999"}) {
    EXPECT_THAT(NeuronsOf(bad), HasSubstr("is not LAYER:NEURONS")) << bad;
  }
}

TEST(SweepArgumentsTest, DirectionsAreRowsOfWhatWasUploaded) {
  const std::string name = "v" + std::string(32, '0');
  const auto range = ParseDirections(name + ":3-5@12:post");
  ASSERT_TRUE(range.ok()) << range.status();
  EXPECT_EQ(range->direction().vector().name(), name);
  EXPECT_EQ(range->direction().point(), v1::POST_BLOCK);
  EXPECT_EQ(range->first_row(), 3);
  EXPECT_EQ(range->last_row(), 5);
  for (const char* file : {"none.npy", "a/none.safetensors"}) {
    EXPECT_THAT(std::string(ParseDirections(std::string(file) + ":0@1").status().message()),
                HasSubstr("is a file; upload it with epo upload-vector"));
  }
}

TEST(SweepArgumentsTest, SeedsAreRangesOrNumbers) {
  EXPECT_THAT(*ParseSeeds("0-4"), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(*ParseSeeds("7"), ElementsAre(7));
  EXPECT_THAT(*ParseSeeds("18446744073709551614-18446744073709551615,3"),
              ElementsAre(18446744073709551614U, 18446744073709551615U, 3));
  for (const char* bad : {"", "a", "-1", "1-", "4-0", "1,,2", "18446744073709551616"}) {
    EXPECT_THAT(std::string(ParseSeeds(bad).status().message()), HasSubstr("is neither seeds"))
        << bad;
  }
  EXPECT_EQ(ParseSeeds("1-1000000")->size(), 1'000'000);
  for (const char* many : {"0-1000000", "0-18446744073709551615", "0-600000,0-600000"}) {
    EXPECT_THAT(std::string(ParseSeeds(many).status().message()),
                HasSubstr("more than 1000000 seeds"));
  }
}

TEST(SweepArgumentsTest, RangesBecomeObjectivesWhereTheySayTooLittle) {
  v1::SweepSpec spec;
  const auto neurons = ParseNeurons("8:5,7-8");
  for (const v1::NeuronRange& range : *neurons) *spec.add_neurons() = range;
  *spec.add_directions() = *ParseDirections("v" + std::string(32, '0') + ":3-4@12:post");
  EXPECT_EQ(RangedObjectives(spec), 5);
  v1::SweepSpec small = spec;
  std::vector<std::string> flags;
  ExpandRanges(small, std::nullopt, /*minimize=*/true, flags);
  EXPECT_TRUE(small.neurons().empty() && small.directions().empty());
  ASSERT_EQ(small.objectives_size(), 5);
  EXPECT_EQ(small.objectives(1).neuron().neuron(), 7);
  EXPECT_EQ(small.objectives(1).goal(), v1::Objective::MINIMIZE);
  EXPECT_EQ(small.objectives(4).terms(0).direction().vector().row(), 4);
  EXPECT_THAT(flags,
              ElementsAre("--neurons", "--neurons", "--neurons", "--directions", "--directions"));
  v1::Position first;
  first.set_index(0);
  ExpandRanges(spec, first, /*minimize=*/false, flags);
  EXPECT_EQ(spec.objectives(2).terms(0).neuron().neuron(), 8);
  for (const v1::Objective& objective : spec.objectives()) {
    EXPECT_EQ(objective.goal(), v1::Objective::GOAL_UNSPECIFIED);
    EXPECT_TRUE(objective.terms(0).position().has_index());
  }
}

v1::Sweep MakeSweep(int64_t done = 30) {
  v1::Sweep sweep;
  sweep.set_id("sweep-a");
  sweep.set_state(v1::Sweep::RUNNING);
  sweep.set_objective_count(2);
  sweep.set_seed_count(1);
  sweep.mutable_jobs()->set_running(1);
  sweep.mutable_jobs()->set_succeeded(1);
  sweep.set_completed_iterations(done);
  sweep.set_total_iterations(60);
  sweep.set_evaluations(100 * done);
  return sweep;
}

TEST(SweepTextTest, TellsWhatItIsAndHowItIs) {
  const v1::Sweep sweep = MakeSweep();
  EXPECT_EQ(SweepSizeText(sweep), "2 objectives x 1 seed");
  EXPECT_EQ(JobCountsText(sweep.jobs()), "1 running, 1 succeeded");
  EXPECT_THAT(SweepEndLine(sweep),
              "sweep-a RUNNING after 30/60 steps of 2 jobs, 3000 evaluations: "
              "1 running, 1 succeeded");
  EXPECT_TRUE(IsSweepId("sweep-a"));
  EXPECT_FALSE(IsSweepId("jsweep-a"));
}

TEST(SweepTextTest, TheFrameFitsAndTellsPaceAndLoss) {
  SweepView view;
  const absl::Time start = absl::FromUnixSeconds(1000);
  view.sweep = MakeSweep(10);
  view.pace.Add(view.sweep, start);
  EXPECT_EQ(SweepPlainLine(view, start), "step 10/60, 1/2 jobs ended, ETA --");
  view.sweep = MakeSweep(30);
  const absl::Time now = start + absl::Seconds(10);
  view.pace.Add(view.sweep, now);
  EXPECT_EQ(SweepPlainLine(view, now), "step 30/60, 1/2 jobs ended, ETA 15s, 200 evaluations/s");
  // It counts down between two looks that see nothing new.
  view.pace.Add(view.sweep, now + absl::Seconds(5));
  EXPECT_THAT(SweepPlainLine(view, now + absl::Seconds(5)), HasSubstr("ETA 10s"));

  view.lost = View::Lost{"gone", now - absl::Seconds(3)};
  for (const int columns : {120, 40, 12, 2}) {
    for (const int rows : {24, 4, 2}) {
      const auto lines = SweepFrameLines(view, now, {columns, rows}, /*color=*/false);
      EXPECT_LT(lines.size(), rows);
      for (const std::string& line : lines) EXPECT_LT(DisplayWidth(line), columns);
    }
  }
  const auto lines = SweepFrameLines(view, now, {120, 24}, false);
  EXPECT_EQ(lines[0], "sweep-a  2 objectives x 1 seed  RUNNING");
  EXPECT_THAT(lines[1], HasSubstr("████████████████████░░░░░░░░░░░░░░░░░░░░ 30/60  ETA 15s  200 "));
  EXPECT_EQ(lines[2], "jobs: 1 running, 1 succeeded");
  EXPECT_THAT(lines[3], HasSubstr("connection lost 3s ago, trying again: gone"));
}

TEST(SweepTextTest, APointIsARowOfOneTable) {
  v1::ObjectiveFrontier frontier;
  frontier.set_objective_index(3);
  frontier.mutable_objective()->mutable_neuron()->set_layer(8);
  frontier.mutable_objective()->mutable_neuron()->set_neuron(5);
  auto& point = *frontier.add_points();
  point.set_job("j1");
  point.set_seed(18446744073709551615U);
  point.mutable_prompt()->add_ids(1);
  point.mutable_prompt()->set_text("a\n\"b");
  point.mutable_prompt()->set_target(0.1F);
  EXPECT_THAT(
      SweepPointRow(frontier, point),
      ElementsAre("3", "layer 8 neuron 5", "18446744073709551615", "0.1000", "-", "\"a\\n\\\"b\""));
  EXPECT_EQ(Compact(SweepPointJson(frontier, point)),
            R"({"objective_index":3,"objective":{"neuron":{"layer":8,"neuron":5},"terms":[],)"
            R"("combination":"COMBINATION_UNSPECIFIED","temperature":null,)"
            R"("goal":"GOAL_UNSPECIFIED"},"job":"j1",)"
            R"("seed":18446744073709551615,"ids":[1],"text":"a\n\"b","target":0.1,)"
            R"("cross_entropy":null,"round_trips":false})");
}

TEST(CsvTest, QuotesWhatNeedsIt) {
  EXPECT_EQ(CsvLine({"a", "", "b,c", "d\"e", "f\ng"}), "a,,\"b,c\",\"d\"\"e\",\"f\ng\"\n");
  v1::ScoredPrompt prompt;
  prompt.set_target(0.1F);
  prompt.set_cross_entropy(1e-20F);
  prompt.set_text("x\x1b[2J,\ny");
  prompt.add_ids(3);
  prompt.add_ids(4);
  EXPECT_THAT(CsvCells(prompt, /*terminal=*/true),
              ElementsAre("0.1", "1e-20", "x\\x1b[2J,\\ny", "3 4", "false"));
  EXPECT_EQ(CsvCells(prompt, /*terminal=*/false)[2], prompt.text());
  prompt.clear_cross_entropy();
  prompt.set_round_trips(true);
  EXPECT_EQ(CsvCells(prompt, /*terminal=*/true)[1], "");
  EXPECT_EQ(CsvCells(prompt, /*terminal=*/true)[4], "true");
}

}  // namespace
}  // namespace epo::cli
