#include "client/cli/progress.h"

#include <gtest/gtest.h>

namespace epo::cli {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

v1::Job Job(int completed, int64_t evaluations, double run_seconds) {
  v1::Job job;
  job.mutable_spec()->set_iterations(100);
  job.set_completed_iterations(completed);
  job.set_evaluations(evaluations);
  job.set_run_seconds(run_seconds);
  return job;
}

v1::Step Step(int index) {
  v1::Step step;
  step.set_index(index);
  step.set_evaluations((index + 1) * 264);
  return step;
}

TEST(ProgressTest, KnowsNothingOfANewJob) {
  Progress progress;
  progress.Found(Job(0, 0, 0));
  EXPECT_EQ(progress.done(), 0);
  EXPECT_EQ(progress.total(), 100);
  EXPECT_FALSE(progress.EvaluationsPerSecond());
  EXPECT_FALSE(progress.Remaining(kStart));
}

TEST(ProgressTest, AReplayTellsNothingAboutSpeed) {
  Progress progress;
  progress.Found(Job(50, 50 * 264, 100));
  for (int i = 0; i < 50; ++i) progress.Step(Step(i), kStart + absl::Milliseconds(i));
  EXPECT_EQ(progress.done(), 50);
  EXPECT_DOUBLE_EQ(*progress.EvaluationsPerSecond(), 132);
  EXPECT_EQ(*progress.Remaining(kStart), absl::Seconds(100));
}

TEST(ProgressTest, FollowsTheLatestSteps) {
  Progress progress;
  progress.Found(Job(0, 0, 0));
  absl::Time now = kStart;
  for (int i = 0; i < 10; ++i) progress.Step(Step(i), now += absl::Seconds(60));
  for (int i = 10; i < 40; ++i) progress.Step(Step(i), now += absl::Seconds(2));
  EXPECT_EQ(progress.done(), 40);
  EXPECT_DOUBLE_EQ(*progress.EvaluationsPerSecond(), 132);
  EXPECT_EQ(*progress.Remaining(now), absl::Seconds(120));
  EXPECT_EQ(*progress.Remaining(now + absl::Seconds(1)), absl::Seconds(119));
  EXPECT_EQ(*progress.Remaining(now + absl::Hours(1)), absl::ZeroDuration());
}

TEST(ProgressTest, ABrokenConnectionStartsThePaceAnew) {
  Progress progress;
  progress.Found(Job(0, 0, 0));
  progress.Step(Step(0), kStart);
  progress.Step(Step(1), kStart + absl::Seconds(2));
  progress.Found(Job(4, 4 * 264, 8));
  for (const int i : {2, 3}) progress.Step(Step(i), kStart + absl::Hours(1));
  EXPECT_EQ(progress.done(), 4);
  EXPECT_DOUBLE_EQ(*progress.EvaluationsPerSecond(), 132);
}

}  // namespace
}  // namespace epo::cli
