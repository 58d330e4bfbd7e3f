#include "server/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "tests/unit/server/scheduler_fixture.h"

namespace epo {
namespace {

TEST_F(SchedulerTest, EqualJobsAdvanceStepByStep) {
  options_.round_rows = 120;  // three of them a round
  Start();
  std::vector<std::string> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(Create(12).id());
  OpenGate();
  for (const std::string& id : ids) EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
  std::map<std::string, int> steps;
  for (const auto& [id, index] : store_->appended()) {
    EXPECT_EQ(index, steps[id]++);
    for (const std::string& other : ids) EXPECT_LE(std::abs(steps[id] - steps[other]), 1);
  }
  EXPECT_EQ(store_->appended().size(), 8u * 12u);
}

TEST_F(SchedulerTest, AJobThatEndsAboveItsCeilingFailsWithItsSteps) {
  Start();
  OpenGate();
  const auto run = [&](double ceiling) {
    Scheduler::Submission submission = Prepare(3);
    const std::string id = submission.job.id();
    submission.spec.options.constraints.max_cross_entropy = ceiling;
    scheduler_->Submit(std::move(submission));
    return WaitForEnd(id);
  };
  const v1::Job job = run(0.25);
  EXPECT_EQ(job.state(), v1::Job::FAILED);
  EXPECT_EQ(job.completed_iterations(), 3);
  float least = std::numeric_limits<float>::infinity();
  const std::vector<v1::Iteration> iterations = store_->GetIterations(job.id(), 0, 10).value();
  EXPECT_EQ(iterations.size(), 3);
  for (const v1::Iteration& iteration : iterations) {
    for (const float each : iteration.cross_entropy()) least = std::min(least, each);
  }
  EXPECT_EQ(job.error().message().find(absl::StrCat(
                "constraints.max_cross_entropy: no prompt that was scored has a cross-entropy of "
                "at most 0.25; the least is ",
                least, ". ")),
            0)
      << job.error().message();
  EXPECT_EQ(run(1000).state(), v1::Job::SUCCEEDED);
}

TEST_F(SchedulerTest, ABigJobStarvesNobodyAndIsNotStarved) {
  options_.round_rows = 120;
  Start();
  const std::string big = Create(4, 1, /*population=*/40).id();  // 800 rows a step
  const std::string small = Create(80).id();                     // 40
  OpenGate();
  EXPECT_EQ(WaitForEnd(small).state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(WaitForEnd(big).state(), v1::Job::SUCCEEDED);
  int of_small = 0;
  for (const auto& [id, index] : store_->appended()) {
    if (id == small) ++of_small;
    if (id == big) {
      EXPECT_NEAR(of_small, 20 * index, 2);
    }
  }
}

TEST_F(SchedulerTest, JobsBeyondTheActiveOnesWaitTheirTurn) {
  options_.max_active_jobs = 2;
  Start();
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(Create(3).id());
  OpenGate();
  for (const std::string& id : ids) EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
  const auto appended = store_->appended();
  for (size_t i = 0; i < 6; ++i)
    EXPECT_TRUE(appended[i].first == "j1" || appended[i].first == "j2");
  EXPECT_EQ(appended.back().first, "j5");
}

class RoundFault : public SchedulerTest, public testing::WithParamInterface<Fault> {};

TEST_P(RoundFault, FailsOnlyTheJobThatCausesIt) {
  Start(GetParam());
  const std::string good = Create(5).id();
  const std::string bad = Create(5, kPoison).id();
  const std::string other = Create(5, 2).id();
  OpenGate();
  const v1::Job failed = WaitForEnd(bad);
  EXPECT_EQ(failed.state(), v1::Job::FAILED);
  EXPECT_NE(failed.error().message().find("the device"), std::string::npos);
  EXPECT_EQ(failed.error().code(), GetParam() == Fault::kThrow ? 13 : 8);
  EXPECT_TRUE(failed.has_end_time());
  EXPECT_EQ(WaitForEnd(good).state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(WaitForEnd(other).state(), v1::Job::SUCCEEDED);
}

INSTANTIATE_TEST_SUITE_P(Faults, RoundFault, testing::Values(Fault::kStatus, Fault::kThrow));

TEST_F(SchedulerTest, NothingIsPublishedBeforeItIsStored) {
  Start();
  const std::string first = Create(30).id();
  const std::string second = Create(30).id();
  OpenGate();
  WaitForSteps(first, 5);
  store_->full = true;
  // Each job has a step that the store refused, and then runs no other.
  while (store_->refused < 10) absl::SleepFor(absl::Milliseconds(2));
  const int stored = Get(first).completed_iterations();
  const auto feed = feeds_.Find(first);
  EXPECT_EQ(feed->Read(stored + 1, 16).kind, Feed::Slice::Kind::kWait);
  store_->full = false;
  for (const std::string& id : {first, second}) {
    EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
    EXPECT_EQ(Get(id).evaluations(), 300);
    EXPECT_EQ(store_->GetIterations(id, 0, 100)->size(), 30u);
  }
}

TEST_F(SchedulerTest, ACancellationWaitsForTheStore) {
  Start();
  const std::string id = Create(100'000).id();
  OpenGate();
  WaitForSteps(id, 2);
  store_->full = true;
  std::atomic<bool> answered = false;
  scheduler_->Cancel(id, [&](const absl::StatusOr<v1::Job>& job) {
    EXPECT_EQ(job->state(), v1::Job::CANCELLED);
    answered = true;
  });
  const int before = store_->refused;
  while (store_->refused < before + 5) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_FALSE(answered);
  store_->full = false;
  const v1::Job job = WaitForEnd(id);
  EXPECT_EQ(job.state(), v1::Job::CANCELLED);
  // The step that had to wait is part of the result.
  EXPECT_EQ(static_cast<int>(store_->GetIterations(id, 0, 100'000)->size()),
            job.completed_iterations());
  while (!answered) absl::SleepFor(absl::Milliseconds(2));
}

TEST_F(SchedulerTest, CancelsRunningAndWaitingJobs) {
  options_.max_active_jobs = 1;
  Start();
  const std::string running = Create(100'000).id();
  const std::string waiting = Create(100'000).id();
  OpenGate();
  WaitForSteps(running, 1);
  EXPECT_EQ(Cancel(waiting)->state(), v1::Job::CANCELLED);
  EXPECT_EQ(Get(waiting).state(), v1::Job::CANCELLED);
  EXPECT_EQ(Get(waiting).completed_iterations(), 0);
  EXPECT_EQ(Cancel(running)->state(), v1::Job::CANCELLED);
  EXPECT_GE(Get(running).completed_iterations(), 1);
  EXPECT_TRUE(absl::IsNotFound(Cancel(running).status()));
  EXPECT_TRUE(absl::IsNotFound(Cancel("jnone").status()));
}

TEST_F(SchedulerTest, ScoreCallsAreBounded) {
  options_.max_score_calls = 2;
  Start();
  const ScoreSpec requests{NeuronObjective(kLayer, 1), std::vector<Prompt>(100, {1, 2, 3})};
  std::vector<absl::StatusOr<std::vector<Score>>> answers(4, absl::UnknownError("none"));
  std::atomic<int> count = 0;
  for (int i = 0; i < 3; ++i) {
    scheduler_->ScorePrompts(
        requests, [i] { return i == 1; },
        [&, i](auto scores) {
          answers[i] = std::move(scores);
          ++count;
        });
  }
  // The third was refused at once.
  EXPECT_EQ(count, 1);
  EXPECT_EQ(answers[2].status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(answers[2].status().GetPayload("type.googleapis.com/google.rpc.RetryInfo"));
  OpenGate();
  while (count < 3) absl::SleepFor(absl::Milliseconds(2));
  ASSERT_TRUE(answers[0].ok());
  EXPECT_EQ(answers[0]->size(), 100u);
  EXPECT_EQ((*answers[0])[0], (*answers[0])[99]);
  EXPECT_TRUE(absl::IsCancelled(answers[1].status()));
}

TEST_F(SchedulerTest, StopAnswersEverythingAndLosesNothing) {
  Start();
  const std::string id = Create(100'000).id();
  OpenGate();
  WaitForSteps(id, 3);
  scheduler_->Stop();
  const v1::Job job = Get(id);
  EXPECT_EQ(job.state(), v1::Job::RUNNING);
  EXPECT_EQ(static_cast<int>(store_->GetIterations(id, 0, 100'000)->size()),
            job.completed_iterations());
  EXPECT_TRUE(absl::IsUnavailable(Cancel(id).status()));
  bool answered = false;
  scheduler_->ScorePrompts(
      {NeuronObjective(kLayer, 1), {{1, 2}}}, [] { return false; },
      [&](const auto& scores) {
        EXPECT_TRUE(absl::IsUnavailable(scores.status()));
        answered = true;
      });
  EXPECT_TRUE(answered);
  scheduler_->Stop();
}

TEST_F(SchedulerTest, SaysWhyTheEvaluatorCannotBeMade) {
  scheduler_ = MakeScheduler(
      converter_, *store_, feeds_,
      []() -> std::unique_ptr<Evaluator> {
        throw std::runtime_error("no kernel image\nException raised from a.cpp:1");
      },
      options_);
  const absl::Status ready = scheduler_->WaitUntilReady();
  EXPECT_TRUE(absl::IsInternal(ready));
  EXPECT_EQ(ready.message(), "the model cannot be run on cpu: no kernel image");
  EXPECT_TRUE(absl::IsUnavailable(Cancel("j1").status()));
  EXPECT_TRUE(scheduler_->Stop());
}

TEST_F(SchedulerTest, ContinuesWhereTheLastProcessStopped) {
  Start();
  OpenGate();
  const std::string whole = Create(20).id();
  WaitForEnd(whole);
  const std::string id = Create(20).id();
  WaitForSteps(id, 4);
  scheduler_->Stop();

  Start();
  const auto recovered = Recover();
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  const v1::Job job = WaitForEnd(id);
  EXPECT_EQ(job.state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(job.evaluations(), 200);
  const auto expected = store_->GetIterations(whole, 0, 100);
  const auto got = store_->GetIterations(id, 0, 100);
  ASSERT_EQ(got->size(), 20u);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ((*got)[i].SerializeAsString(), (*expected)[i].SerializeAsString()) << i;
  }
}

}  // namespace
}  // namespace epo
