#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "client/cli/report_data.h"
#include "client/cli/write_file.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Json = nlohmann::ordered_json;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

v1::Frontier FrontierOf(const std::vector<float>& cross_entropies) {
  v1::Frontier frontier;
  for (const float cross_entropy : cross_entropies) {
    auto* point = frontier.add_points();
    point->set_text("a");
    point->set_target(cross_entropy / 2);
    point->set_cross_entropy(cross_entropy);
    point->set_round_trips(true);
  }
  return frontier;
}

v1::Iteration IterationOf(int index, const std::vector<std::pair<float, float>>& pool) {
  v1::Iteration iteration;
  iteration.set_index(index);
  for (const auto& [target, cross_entropy] : pool) {
    iteration.add_target(target);
    iteration.add_cross_entropy(cross_entropy);
  }
  return iteration;
}

JobReport Report() {
  JobReport report;
  report.job.set_id("j1");
  report.job.set_state(v1::Job::SUCCEEDED);
  report.job.mutable_spec()->mutable_objective()->mutable_neuron()->set_layer(2);
  report.job.mutable_spec()->set_iterations(3);
  report.job.set_completed_iterations(3);
  report.frontier = FrontierOf({3, 4});
  return report;
}

TEST(TellingIterationsTest, BeginsAndEndsWithTheSearch) {
  EXPECT_THAT(TellingIterations(0), IsEmpty());
  EXPECT_THAT(TellingIterations(1), ElementsAre(1));
  EXPECT_THAT(TellingIterations(2), ElementsAre(1, 2));
  EXPECT_THAT(TellingIterations(300), ElementsAre(1, 10, 41, 128, 300));
}

TEST(ChooseThresholdsTest, TakesRoundNumbersWithinTheFrontier) {
  EXPECT_THAT(ChooseThresholds(FrontierOf({3.2, 5, 13.5})), ElementsAre(4, 6, 8, 10, 12));
  EXPECT_THAT(ChooseThresholds(FrontierOf({3.2, 7.1})), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(ChooseThresholds(FrontierOf({5.05, 5.85})), ElementsAre(5.2, 5.4, 5.6, 5.8));
  EXPECT_THAT(ChooseThresholds(FrontierOf({5})), ElementsAre(5));
  EXPECT_THAT(ChooseThresholds(FrontierOf({6.1234F})), ElementsAre(6.13));
  EXPECT_THAT(ChooseThresholds(FrontierOf({kNan})), IsEmpty());
  EXPECT_THAT(ChooseThresholds({}), IsEmpty());
}

TEST(ParseThresholdsTest, TakesNumbersAboveZero) {
  EXPECT_THAT(ParseThresholds("6.5,4,4").value(), ElementsAre(4, 6.5));
  for (const char* bad : {"", "4,", "x", "0", "-1", "nan", "inf", "1,2,3,4,5,6"}) {
    EXPECT_FALSE(ParseThresholds(bad).ok()) << bad;
  }
}

TEST(BestUnderTest, RisesWithWhatIsUnderTheThreshold) {
  BestUnder best({2, 5});
  best.Add(IterationOf(0, {{1, 9}, {kNan, 1}, {7, kNan}}));
  best.Add(IterationOf(1, {{1, 5}, {0.5, 2}}));
  best.Add(IterationOf(2, {{0.75, 2}, {0.875, 4}}));
  best.Add(IterationOf(3, {{0.25, 1}}));
  EXPECT_EQ(best.Json(), Json::parse(R"([{"limit":2.0,"points":[[2,0.5],[3,0.75],[4,0.75]]},
                                         {"limit":5.0,"points":[[2,1.0],[4,1.0]]}])"));
}

TEST(JobReportTest, SaysWhatIsPartial) {
  JobReport report = Report();
  EXPECT_THAT(JobReportJson(report, "now")["notices"], IsEmpty());
  report.job.set_state(v1::Job::PAUSED);
  report.job.set_completed_iterations(2);
  EXPECT_THAT(JobReportJson(report, "now")["notices"].dump(),
              HasSubstr("PAUSED after 2 of 3 iterations"));
  report.job.set_state(v1::Job::FAILED);
  report.job.mutable_error()->set_message("broken");
  EXPECT_THAT(JobReportJson(report, "now")["notices"].dump(), HasSubstr("broken"));
  report.frontier.clear_points();
  EXPECT_EQ(JobReportJson(report, "now")["notices"].size(), 2U);
}

TEST(JobReportTest, KeepsTheBestThreeSubstitutesAndTheWorst) {
  JobReport report = Report();
  v1::TokenAttribution token;
  token.set_text("t");
  token.set_drop_to_best(0.5F);
  token.set_drop_to_worst(3);
  for (const float target : {1.0F, 4.0F, 2.0F, 5.0F, 3.0F}) {
    auto* substitute = token.add_substitutes();
    substitute->set_text(std::to_string(static_cast<int>(target)));
    substitute->set_target(target);
  }
  report.attributions = {{token}, {}};
  const Json attribution = JobReportJson(report, "now")["attribution"];
  EXPECT_EQ(attribution[0]["tokens"][0], Json::parse(R"({"text":"t","best":0.5,"worst":3.0,
                            "top":[["5",5.0,null],["4",4.0,null],["3",3.0,null]],
                            "bottom":["1",1.0,null]})"));
  EXPECT_TRUE(attribution[1].is_null());
}

TEST(CompareReportTest, WarnsOfWhatCannotBeCompared) {
  std::vector<ComparedJob> jobs(2);
  jobs[0].job = jobs[1].job = Report().job;
  jobs[0].frontier = jobs[1].frontier = FrontierOf({1});
  EXPECT_THAT(CompareReportJson(jobs, {}, "now")["notices"], IsEmpty());
  jobs[1].job.set_model_fingerprint("other");
  jobs[1].job.mutable_spec()->mutable_objective()->set_goal(v1::Objective::MINIMIZE);
  EXPECT_EQ(CompareReportJson(jobs, {}, "now")["notices"].size(), 2U);
}

TEST(CompareReportTest, TellsWhichJobIsPartial) {
  std::vector<ComparedJob> jobs(2);
  jobs[0].job = jobs[1].job = Report().job;
  jobs[1].job.set_id("j2");
  jobs[1].job.set_state(v1::Job::CANCELLED);
  jobs[1].job.set_completed_iterations(1);
  jobs[0].frontier = FrontierOf({1});
  const Json data = CompareReportJson(jobs, {}, "now");
  EXPECT_EQ(data["notices"], Json::parse(R"([["The search did not run to its end.",
                                "Job j2 is CANCELLED after 1 of 3 iterations."],
                               ["The frontier is empty.",
                                "Job j2 scored nothing below its ceiling on cross-entropy."]])"));
  EXPECT_EQ(data["jobs"][0]["name"], "j1, seed 0");
  EXPECT_EQ(data["jobs"][1]["name"], "j2 (1 of 3 iterations), seed 0");
}

TEST(ReportPageTest, NoTextLeavesItsPlace) {
  JobReport report = Report();
  report.frontier.mutable_points(0)->set_text("</script><!--\u2028@STYLE@ \xff");
  report.job.set_id("<b>&\"");
  const std::string page = ReportPage(JobReportJson(report, "now"));
  EXPECT_THAT(page, HasSubstr("\\u003c/script>\\u003c!--\\u2028@STYLE@ \ufffd"));
  EXPECT_THAT(page, HasSubstr("<title>layer 2 neuron 0 – &lt;b&gt;&amp;&quot;</title>"));
  EXPECT_THAT(page, Not(HasSubstr("@DATA@")));
  // Nothing is fetched from anywhere.
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  EXPECT_THAT(page, Not(HasSubstr("src=\"")));
}

class WriteFileTest : public testing::Test {
 protected:
  WriteFileTest() : folder_(testing::TempDir() + "write_file_test") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }
  ~WriteFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Content(const std::string& name) const {
    std::ostringstream out;
    out << std::ifstream(folder_ + "/" + name).rdbuf();
    return out.str();
  }

  const std::string folder_;
};

TEST_F(WriteFileTest, ReplacesAndLeavesNothingElse) {
  ASSERT_TRUE(WriteFile(folder_ + "/a", "one").ok());
  ASSERT_TRUE(WriteFile(folder_ + "/a", "two").ok());
  EXPECT_EQ(Content("a"), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(WriteFileTest, SaysWhyNot) {
  EXPECT_THAT(std::string(WriteFile(folder_ + "/none/a", "x").message()),
              HasSubstr("No such file"));
  EXPECT_THAT(std::string(WriteFile(folder_, "x").message()), HasSubstr("Is a directory"));
  EXPECT_THAT(std::string(WriteFile("/dev/null", "x").message()), HasSubstr("not a file"));
  EXPECT_FALSE(CheckWritable(folder_ + "/none/a").ok());
}

}  // namespace
}  // namespace epo::cli
