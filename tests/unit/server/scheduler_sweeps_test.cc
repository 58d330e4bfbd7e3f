// Sweeps of a thousand jobs beside others, and their end.
#include "absl/time/clock.h"
#include "tests/unit/server/scheduler_fixture.h"

namespace epo {
namespace {

constexpr int kJobs = 1000;

class SchedulerSweepsTest : public SchedulerTest {
 protected:
  // A sweep's jobs, which would run for long.
  std::vector<std::string> CreateSweep(const std::string& id, const std::string& client, int count,
                                       int iterations = 100'000) {
    FieldViolations violations;
    const v1::JobSpec wire = Spec(iterations, 1, 2);
    const SearchSpec spec = converter_.ParseSpec(wire, "spec", violations);
    EXPECT_TRUE(violations.empty());
    v1::Sweep sweep;
    sweep.set_id(id);
    sweep.set_client(client);
    *sweep.mutable_spec()->mutable_job() = Converter::EffectiveSpec(wire, spec);
    sweep.set_objective_count(1);
    sweep.set_seed_count(count);
    std::vector<v1::Job> jobs;
    std::vector<std::string> ids;
    for (int i = 0; i < count; ++i) {
      v1::Job& job = jobs.emplace_back();
      job.set_id(absl::StrCat(id, "-", i));
      job.set_client(client);
      *job.mutable_spec() = sweep.spec().job();
      job.set_state(v1::Job::QUEUED);
      job.set_model_fingerprint(model_->fingerprint());
      job.set_sweep(id);
      job.set_sweep_index(i);
      feeds_.Open(job.id(), 0);
      ids.push_back(job.id());
    }
    EXPECT_TRUE(store_->CreateSweep(sweep, jobs, "", "", 10 * kJobs).ok());
    for (const v1::Job& job : jobs) scheduler_->Submit({.job = job, .spec = spec});
    return ids;
  }

  std::string CreateOf(const std::string& client, int iterations) {
    FieldViolations violations;
    const v1::JobSpec wire = Spec(iterations, 2, 2);
    SearchSpec spec = converter_.ParseSpec(wire, "spec", violations);
    v1::Job job;
    job.set_id("of-" + client);
    job.set_client(client);
    *job.mutable_spec() = Converter::EffectiveSpec(wire, spec);
    job.set_state(v1::Job::QUEUED);
    job.set_model_fingerprint(model_->fingerprint());
    feeds_.Open(job.id(), 0);
    EXPECT_TRUE(store_->CreateJob(job, "", "", kMaxQueued).ok());
    scheduler_->Submit({.job = job, .spec = std::move(spec)});
    return job.id();
  }

  absl::Status CancelSweep(const std::string& id) {
    absl::Notification answered;
    absl::Status answer;
    scheduler_->CancelSweep(id, [&](const absl::Status& status) {
      answer = status;
      answered.Notify();
    });
    answered.WaitForNotification();
    return answer;
  }
};

TEST_F(SchedulerSweepsTest, ASweepLeavesAnotherClientItsHalf) {
  options_.max_active_jobs = 8;
  options_.round_rows = 160;
  Start();
  CreateSweep("sweep-a", "bob", kJobs);
  OpenGate();
  while (store_->rounds().size() < 5) absl::SleepFor(absl::Milliseconds(1));
  const std::string other = CreateOf("alice", 100);
  const size_t before = store_->appended().size();
  EXPECT_EQ(WaitForEnd(other).state(), v1::Job::SUCCEEDED);
  // The sweep had as many rows as she, and what its jobs did before she had a place.
  const size_t steps = store_->appended().size() - before;
  EXPECT_LT(steps, 100 + 130);
  EXPECT_GT(steps, 100 + 80);
}

TEST_F(SchedulerSweepsTest, WaitingJobsDoNotSlowTheRounds) {
  options_.max_active_jobs = 2;
  Start();
  OpenGate();
  const auto seconds = [this] {
    const std::string id = Create(300).id();
    const absl::Time start = absl::Now();
    EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
    return absl::ToDoubleSeconds(absl::Now() - start);
  };
  const double alone = seconds();
  // The sweep's clients and the job's are two, so that each has a place.
  CreateSweep("sweep-a", "bob", 10 * kJobs);
  // Beside one other job a step takes about twice as long.
  EXPECT_LT(seconds(), 8 * alone + 1);
}

TEST_F(SchedulerSweepsTest, IsCancelledWithinAStepAndInOneWrite) {
  Start();
  OpenGate();
  const std::vector<std::string> ids = CreateSweep("sweep-a", "", kJobs);
  const v1::Job other = Create(100'000);
  WaitForSteps(ids[0], 3);
  const v1::Job paused = *Do(&Scheduler::Pause, ids[kJobs - 1]);
  EXPECT_EQ(paused.state(), v1::Job::PAUSED);
  ASSERT_TRUE(Cancel(ids[1]).ok());
  ASSERT_TRUE(CancelSweep("sweep-a").ok());
  EXPECT_EQ(store_->updates, 1);
  const v1::Sweep sweep = *store_->GetSweep("sweep-a");
  EXPECT_EQ(sweep.state(), v1::Sweep::CANCELLED);
  EXPECT_EQ(sweep.jobs().cancelled(), kJobs);
  for (const std::string& id : ids) EXPECT_EQ(feeds_.Find(id), nullptr);
  const int steps = static_cast<int>(Get(ids[0]).completed_iterations());
  WaitForSteps(other.id(), Get(other.id()).completed_iterations() + 3);
  EXPECT_EQ(Get(ids[0]).completed_iterations(), steps);
  // Nothing is left to cancel.
  EXPECT_TRUE(CancelSweep("sweep-a").ok());
  EXPECT_TRUE(CancelSweep("sweep-none").ok());
}

TEST_F(SchedulerSweepsTest, ACancellationWaitsForTheStore) {
  Start();
  OpenGate();
  const std::vector<std::string> ids = CreateSweep("sweep-a", "", 5);
  WaitForSteps(ids[0], 2);
  store_->full = true;
  while (store_->refused < 1) absl::SleepFor(absl::Milliseconds(1));
  absl::Notification answered;
  absl::Status answer = absl::UnknownError("");
  scheduler_->CancelSweep("sweep-a", [&](const absl::Status& status) {
    answer = status;
    answered.Notify();
  });
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_FALSE(answered.HasBeenNotified());
  EXPECT_EQ(store_->GetSweep("sweep-a")->jobs().cancelled(), 0);
  store_->full = false;
  answered.WaitForNotification();
  EXPECT_TRUE(answer.ok()) << answer;
  EXPECT_EQ(store_->GetSweep("sweep-a")->jobs().cancelled(), 5);
}

TEST_F(SchedulerSweepsTest, AStopAnswersACancellationThatIsNotStored) {
  Start();
  OpenGate();
  const std::vector<std::string> ids = CreateSweep("sweep-a", "", 5);
  WaitForSteps(ids[0], 2);
  store_->full = true;
  absl::Notification answered;
  absl::Status answer;
  scheduler_->CancelSweep("sweep-a", [&](const absl::Status& status) {
    answer = status;
    answered.Notify();
  });
  while (store_->refused < 1) absl::SleepFor(absl::Milliseconds(1));
  scheduler_->Stop();
  answered.WaitForNotification();
  EXPECT_TRUE(absl::IsUnavailable(answer)) << answer;
  EXPECT_TRUE(absl::IsUnavailable(CancelSweep("sweep-a")));
}

}  // namespace
}  // namespace epo
