// Priorities, clients, pausing, deadlines and memory: what the scheduler does with many jobs. The
// store and the evaluator are real; the evaluator has only so much memory where a test says so.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/model/model.h"
#include "server/clock.h"
#include "server/job_state.h"
#include "server/recover.h"
#include "server/scheduler.h"
#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

constexpr int kLayer = 2;
// Evaluations of a step times tokens of a job of population 2: 2 * (1 + 4) * 4.
constexpr int kRows = 40;

// A device on which a pass of more than `fits` rows runs out of memory.
struct Device {
  std::atomic<int> fits = std::numeric_limits<int>::max();
  std::atomic<int> failures = 0;
  // What the scheduler asked for last.
  std::atomic<int> limit = 0;
};

class SmallDevice : public Evaluator {
 public:
  SmallDevice(std::unique_ptr<Evaluator> real, Device& device)
      : real_(std::move(real)), device_(device) {}

  absl::StatusOr<std::vector<std::shared_ptr<const Prepared>>> Prepare(
      std::span<const PrepareRequest> requests) override {
    return real_->Prepare(requests);
  }
  absl::StatusOr<std::vector<TokenId>> Substitutes(
      std::span<const SubstituteQuery> queries) override {
    return real_->Substitutes(queries);
  }
  absl::StatusOr<std::vector<Score>> ScoreCandidates(
      std::span<const Candidate> candidates) override {
    int rows = 0;
    for (const Candidate& candidate : candidates) rows += static_cast<int>(candidate.tokens.size());
    if (std::min(rows, limit_) > device_.fits) {
      ++device_.failures;
      return absl::ResourceExhaustedError("CUDA out of memory");
    }
    return real_->ScoreCandidates(candidates);
  }
  void LimitRows(int max_rows) override {
    limit_ = max_rows;
    device_.limit = max_rows;
    real_->LimitRows(max_rows);
  }
  const EvaluatorCounters& counters() const override { return real_->counters(); }

 private:
  const std::unique_ptr<Evaluator> real_;
  Device& device_;
  int limit_ = std::numeric_limits<int>::max();
};

struct Wanted {
  int iterations = 100'000;
  int population = 2;
  int priority = 50;
  std::string client;
  absl::Duration deadline = absl::InfiniteDuration();
};

class SchedulerJobsTest : public StoreDirTest {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float64"});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }

  void TearDown() override {
    if (!gate_.HasBeenNotified()) gate_.Notify();
    scheduler_.reset();
    StoreDirTest::TearDown();
  }

  // The model's thread stands still until OpenGate().
  void Start() {
    scheduler_ = MakeScheduler(
        converter_, *store_, feeds_,
        [this]() -> std::unique_ptr<Evaluator> {
          gate_.WaitForNotification();
          return std::make_unique<SmallDevice>(Evaluator::Create(*model_, {}), device_);
        },
        options_);
  }
  void OpenGate() { gate_.Notify(); }

  void Restart() {
    scheduler_->Stop();
    Start();
    const auto recovered =
        RecoverJobs(converter_, *store_, feeds_, *scheduler_, /*max_attempts=*/3);
    ASSERT_TRUE(recovered.ok()) << recovered.status();
  }

  std::string Create(const Wanted& wanted) {
    v1::JobSpec wire;
    wire.mutable_objective()->mutable_neuron()->set_layer(kLayer);
    wire.mutable_objective()->mutable_neuron()->set_neuron(1);
    wire.set_tokens(4);
    wire.set_population(wanted.population);
    wire.set_children_per_parent(4);
    wire.set_top_k(16);
    wire.set_iterations(wanted.iterations);
    wire.set_priority(wanted.priority);
    if (wanted.deadline != absl::InfiniteDuration()) {
      *wire.mutable_deadline() = ToTimestamp(absl::Now() + wanted.deadline);
    }
    FieldViolations violations;
    SearchSpec spec = converter_.ParseSpec(wire, "spec", violations);
    EXPECT_TRUE(violations.empty());
    v1::Job job;
    job.set_id(absl::StrCat("j", ++jobs_));
    job.set_client(wanted.client);
    *job.mutable_spec() = Converter::EffectiveSpec(wire, spec);
    job.set_state(v1::Job::QUEUED);
    job.set_model_fingerprint(model_->fingerprint());
    feeds_.Open(job.id(), 0);
    EXPECT_TRUE(store_->CreateJob(job, "", "", 1000).ok());
    scheduler_->Submit({.job = job, .spec = std::move(spec)});
    return job.id();
  }

  // The job as a client would see it.
  v1::Job Get(const std::string& id) {
    v1::Job job = *store_->GetJob(id);
    scheduler_->Describe(job);
    return job;
  }

  int Steps(const std::string& id) { return Get(id).completed_iterations(); }

  void WaitForSteps(const std::string& id, int count) {
    for (v1::Job job = Get(id); job.completed_iterations() < count; job = Get(id)) {
      ASSERT_FALSE(IsTerminal(job.state())) << job.ShortDebugString();
      absl::SleepFor(absl::Milliseconds(2));
    }
  }

  v1::Job WaitForEnd(const std::string& id) {
    while (feeds_.Find(id) != nullptr) absl::SleepFor(absl::Milliseconds(2));
    return Get(id);
  }

  using Ask = void (Scheduler::*)(const std::string&, Scheduler::JobDone);
  absl::StatusOr<v1::Job> Do(Ask ask, const std::string& id) {
    absl::Notification answered;
    absl::StatusOr<v1::Job> answer;
    ((*scheduler_).*ask)(id, [&](absl::StatusOr<v1::Job> job) {
      answer = std::move(job);
      answered.Notify();
    });
    answered.WaitForNotification();
    return answer;
  }

  void ExpectEqualHistories(const std::string& a, const std::string& b) {
    const auto first = store_->GetIterations(a, 0, 1000);
    const auto second = store_->GetIterations(b, 0, 1000);
    ASSERT_EQ(first->size(), second->size());
    for (size_t i = 0; i < first->size(); ++i) {
      EXPECT_EQ((*first)[i].SerializeAsString(), (*second)[i].SerializeAsString()) << i;
    }
  }

  static const Model* model_;
  SchedulerOptions options_;
  Device device_;
  absl::Notification gate_;
  Converter converter_{*model_};
  JobFeeds feeds_{pool_};
  WorkerPool pool_{1};
  std::unique_ptr<Scheduler> scheduler_;
  int jobs_ = 0;
};

const Model* SchedulerJobsTest::model_ = nullptr;

TEST_F(SchedulerJobsTest, TenMorePriorityIsTwiceTheShare) {
  Start();
  const std::string normal = Create({});
  const std::string high = Create({.iterations = 400, .priority = 70});
  const std::string low = Create({.priority = 40});
  OpenGate();
  EXPECT_EQ(WaitForEnd(high).state(), v1::Job::SUCCEEDED);
  scheduler_->Stop();
  // Some rounds may pass between the end and the stop: until then 4 to 1 to a half.
  EXPECT_GE(Steps(normal), 100);
  EXPECT_LE(Steps(normal), 200);
  EXPECT_NEAR(static_cast<double>(Steps(normal)) / Steps(low), 2, 0.1);
}

TEST_F(SchedulerJobsTest, ClientsHaveEqualSharesWhateverTheirJobs) {
  Start();
  std::vector<std::string> of_bob;
  for (int i = 0; i < 5; ++i) of_bob.push_back(Create({.client = "bob"}));
  const std::string of_alice = Create({.iterations = 300, .client = "alice"});
  OpenGate();
  EXPECT_EQ(WaitForEnd(of_alice).state(), v1::Job::SUCCEEDED);
  int steps = 0;
  for (const std::string& id : of_bob) steps += Do(&Scheduler::Pause, id)->completed_iterations();
  EXPECT_GE(steps, 295);
  // Five times as many if jobs, not clients, had equal shares.
  EXPECT_LE(steps, 800);
}

TEST_F(SchedulerJobsTest, AClientThatHoldsAllPlacesMakesRoomForAnother) {
  options_.max_active_jobs = 2;
  Start();
  OpenGate();
  const std::string first = Create({.client = "bob"});
  const std::string second = Create({.client = "bob"});
  WaitForSteps(second, 5);
  const std::string other = Create({.iterations = 20, .client = "alice"});
  EXPECT_EQ(WaitForEnd(other).state(), v1::Job::SUCCEEDED);
  // The one that gave way goes on afterwards.
  WaitForSteps(second, Steps(second) + 5);
  EXPECT_EQ(Get(first).state(), v1::Job::RUNNING);
  EXPECT_EQ(Get(second).state(), v1::Job::RUNNING);
}

TEST_F(SchedulerJobsTest, WaitingJobsKnowTheirPlaceAndWhenTheirTurnComes) {
  options_.max_active_jobs = 1;
  Start();
  OpenGate();
  const std::string running = Create({});
  WaitForSteps(running, 10);
  const std::string next = Create({});
  const std::string last = Create({});
  const std::string urgent = Create({.priority = 90});
  EXPECT_EQ(Get(running).queue_position(), 0);
  EXPECT_FALSE(Get(running).has_estimated_start_time());
  EXPECT_EQ(Get(urgent).queue_position(), 1);
  EXPECT_EQ(Get(next).queue_position(), 2);
  EXPECT_EQ(Get(last).queue_position(), 3);
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_GT(ToTime(Get(urgent).estimated_start_time()), absl::Now());
  EXPECT_GT(ToTime(Get(next).estimated_start_time()), ToTime(Get(urgent).estimated_start_time()));
  ASSERT_TRUE(Do(&Scheduler::Cancel, urgent).ok());
  EXPECT_EQ(Get(urgent).queue_position(), 0);
  EXPECT_EQ(Get(last).queue_position(), 2);
  ASSERT_TRUE(Do(&Scheduler::Cancel, running).ok());
  WaitForSteps(next, 1);
  EXPECT_EQ(Get(last).queue_position(), 1);
}

TEST_F(SchedulerJobsTest, APausedJobFreesItsPlaceAndContinuesBitForBit) {
  options_.max_active_jobs = 1;
  Start();
  OpenGate();
  const std::string whole = Create({.iterations = 60});
  WaitForEnd(whole);
  const std::string id = Create({.iterations = 60});
  WaitForSteps(id, 7);
  const std::string waiting = Create({.iterations = 20});
  const auto paused = Do(&Scheduler::Pause, id);
  ASSERT_TRUE(paused.ok()) << paused.status();
  EXPECT_EQ(paused->state(), v1::Job::PAUSED);
  EXPECT_EQ(Get(id).state(), v1::Job::PAUSED);
  EXPECT_EQ(WaitForEnd(waiting).state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(Steps(id), paused->completed_iterations());
  EXPECT_LT(Steps(id), 60);

  const auto resumed = Do(&Scheduler::Resume, id);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->state(), v1::Job::QUEUED);
  EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
  ExpectEqualHistories(whole, id);
}

TEST_F(SchedulerJobsTest, OnlyWhatRunsOrWaitsIsPausedAndOnlyWhatIsPausedIsResumed) {
  options_.max_active_jobs = 1;
  Start();
  OpenGate();
  const std::string running = Create({});
  const std::string waiting = Create({});
  WaitForSteps(running, 1);
  EXPECT_EQ(Do(&Scheduler::Resume, running).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Do(&Scheduler::Resume, waiting).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Do(&Scheduler::Pause, waiting)->state(), v1::Job::PAUSED);
  EXPECT_EQ(Get(waiting).queue_position(), 0);
  const absl::Status again = Do(&Scheduler::Pause, waiting).status();
  EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(again.GetPayload("type.googleapis.com/google.rpc.ErrorInfo"));
  EXPECT_EQ(Do(&Scheduler::Cancel, waiting)->state(), v1::Job::CANCELLED);
  EXPECT_TRUE(absl::IsNotFound(Do(&Scheduler::Resume, waiting).status()));
  EXPECT_TRUE(absl::IsNotFound(Do(&Scheduler::Pause, "jnone").status()));
}

TEST_F(SchedulerJobsTest, APausedJobStaysPausedAcrossARestart) {
  Start();
  OpenGate();
  const std::string whole = Create({.iterations = 30});
  WaitForEnd(whole);
  const std::string id = Create({.iterations = 30});
  WaitForSteps(id, 5);
  const int steps = Do(&Scheduler::Pause, id)->completed_iterations();
  Restart();
  WaitForEnd(Create({.iterations = 5}));
  EXPECT_EQ(Get(id).state(), v1::Job::PAUSED);
  EXPECT_EQ(Steps(id), steps);
  EXPECT_EQ(Do(&Scheduler::Resume, id)->state(), v1::Job::QUEUED);
  EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
  ExpectEqualHistories(whole, id);
}

TEST_F(SchedulerJobsTest, DeadlinesEndJobsInEveryState) {
  options_.max_active_jobs = 1;
  Start();
  OpenGate();
  const absl::Duration soon = absl::Milliseconds(400);
  const std::string running = Create({.priority = 90, .deadline = soon});
  const std::string paused = Create({.deadline = soon});
  ASSERT_TRUE(Do(&Scheduler::Pause, paused).ok());
  const std::string waiting = Create({.deadline = soon});
  for (const std::string& id : {running, paused, waiting}) {
    const v1::Job job = WaitForEnd(id);
    EXPECT_EQ(job.state(), v1::Job::FAILED);
    EXPECT_EQ(job.error().code(), 4) << "DEADLINE_EXCEEDED";
    EXPECT_GE(ToTime(job.end_time()), ToTime(job.spec().deadline()));
    EXPECT_EQ(static_cast<int>(store_->GetIterations(id, 0, 100'000)->size()),
              job.completed_iterations());
  }
  EXPECT_GE(Steps(running), 1);
}

TEST_F(SchedulerJobsTest, ADeadlineThatPassedWhileNoServerRanCounts) {
  Start();
  OpenGate();
  const std::string id = Create({.deadline = absl::Seconds(2)});
  WaitForSteps(id, 2);
  scheduler_->Stop();
  absl::SleepFor(absl::Seconds(2));
  Restart();
  const v1::Job job = WaitForEnd(id);
  EXPECT_EQ(job.state(), v1::Job::FAILED);
  EXPECT_EQ(job.error().code(), 4);
  EXPECT_GE(job.completed_iterations(), 2);
}

TEST_F(SchedulerJobsTest, OutOfMemoryHalvesTheRound) {
  Start();
  const std::string reference = Create({.iterations = 40});
  OpenGate();
  WaitForEnd(reference);
  // All three together do not fit, two do.
  device_.fits = 2 * kRows;
  std::vector<std::string> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(Create({.iterations = 40}));
  for (const std::string& id : ids) {
    EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED) << Get(id).error().message();
    ExpectEqualHistories(reference, id);
  }
  EXPECT_GE(device_.failures, 1);
  // It does not run into the wall at every round.
  EXPECT_LE(device_.failures, 20);
  EXPECT_GT(device_.limit, 0);
}

TEST_F(SchedulerJobsTest, AJobTooLargeForOnePassIsCutIntoPasses) {
  device_.fits = 200;
  Start();
  OpenGate();
  EXPECT_EQ(WaitForEnd(Create({.iterations = 5, .population = 40})).state(), v1::Job::SUCCEEDED);
  EXPECT_GE(device_.failures, 1);
  EXPECT_LE(device_.limit, 200 + 200 / 64 + 1);
}

TEST_F(SchedulerJobsTest, TheRoundGrowsBackOnceThereIsRoom) {
  device_.fits = 200;
  options_.round_rows = 1000;
  Start();
  OpenGate();
  const std::string id = Create({.population = 40});
  WaitForSteps(id, 3);
  EXPECT_LE(device_.limit, 210);
  device_.fits = std::numeric_limits<int>::max();
  while (device_.limit < 1000) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(Do(&Scheduler::Cancel, id)->state(), v1::Job::CANCELLED);
}

TEST_F(SchedulerJobsTest, AJobThatDoesNotFitAloneFailsWithTheReason) {
  device_.fits = 30;
  Start();
  OpenGate();
  const std::string id = Create({.population = 40});
  const v1::Job job = WaitForEnd(id);
  EXPECT_EQ(job.state(), v1::Job::FAILED);
  EXPECT_EQ(job.error().code(), 8) << "RESOURCE_EXHAUSTED";
  EXPECT_NE(job.error().message().find("out of memory"), std::string::npos);
  // One small enough goes on.
  device_.fits = std::numeric_limits<int>::max();
  EXPECT_EQ(WaitForEnd(Create({.iterations = 5})).state(), v1::Job::SUCCEEDED);
}

TEST_F(SchedulerJobsTest, JobsWaitForTheMemoryThatOthersHold) {
  // What one survivor's token holds is not known before the first step; after it, room for one job.
  options_.max_held_bytes = 1;
  Start();
  OpenGate();
  const std::string first = Create({.iterations = 200});
  const std::string second = Create({.iterations = 50});
  EXPECT_EQ(WaitForEnd(first).state(), v1::Job::SUCCEEDED);
  EXPECT_LE(Steps(second), 2);
  EXPECT_EQ(WaitForEnd(second).state(), v1::Job::SUCCEEDED);
}

TEST_F(SchedulerJobsTest, StopReturnsAtItsDeadline) {
  Start();
  const std::string id = Create({});
  EXPECT_FALSE(scheduler_->Stop(absl::Now() + absl::Milliseconds(50)));
  OpenGate();
  EXPECT_TRUE(scheduler_->Stop());
  EXPECT_EQ(Get(id).state(), v1::Job::QUEUED);
}

}  // namespace
}  // namespace epo
