// What becomes of jobs whose server died, of those of another model, and of both on a full disk.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "server/live_job.h"
#include "tests/unit/server/scheduler_fixture.h"

namespace epo {
namespace {

using Rounds = std::vector<std::vector<std::string>>;

class CrashTest : public SchedulerTest {
 protected:
  // The last process died in a round of these.
  void DieIn(const std::vector<std::string>& ids) { ASSERT_TRUE(store_->NoteRound(ids, {}).ok()); }

  // A job of the model with fingerprint 0123.
  std::string LeaveForeign(v1::Job::State state) {
    v1::Job job = Get(Leave(state));
    job.set_model_fingerprint("0123");
    EXPECT_TRUE(store_->UpdateJob(job).ok());
    return job.id();
  }

  int Position(const std::string& id) {
    v1::Job job = Get(id);
    scheduler_->Describe(job);
    return job.queue_position();
  }

  // The rounds of the scheduler's own.
  Rounds RoundsSince(size_t before) {
    const Rounds all = store_->rounds();
    return {all.begin() + static_cast<std::ptrdiff_t>(before), all.end()};
  }
};

TEST_F(CrashTest, WhoIsAtWorkIsNotedBeforeAndForgottenAfter) {
  Start();
  const std::string first = Create(4).id();
  const std::string second = Create(2).id();
  OpenGate();
  WaitForEnd(first);
  scheduler_->Stop();
  EXPECT_EQ(store_->rounds(), (Rounds{{first, second}, {first}, {}}));
  EXPECT_TRUE(store_->NotedRound()->empty());
  EXPECT_EQ(Get(first).attempts(), 1);
  EXPECT_EQ(Get(first).crashes(), 0);
}

TEST_F(CrashTest, WhoHadAPlaceHasItAgain) {
  options_.max_active_jobs = 1;
  const std::string older = Leave(v1::Job::QUEUED);
  const std::string active = Leave(v1::Job::RUNNING);
  Start();
  ASSERT_TRUE(Recover().ok());
  EXPECT_EQ(Position(active), 1);
  EXPECT_EQ(Position(older), 2);
  OpenGate();
  WaitForEnd(older);
  std::vector<std::string> order;
  for (const auto& [id, index] : store_->appended()) order.push_back(id);
  EXPECT_EQ(order, (std::vector<std::string>{active, active, active, active, active, older, older,
                                             older, older, older}));
}

TEST_F(CrashTest, AStepDoesNotBeginUnlessItIsNoted) {
  Start();
  const std::string id = Create(3).id();
  store_->full = true;
  OpenGate();
  while (store_->refused < 5) absl::SleepFor(absl::Milliseconds(2));
  const v1::Job waiting = Get(id);
  EXPECT_EQ(waiting.state(), v1::Job::QUEUED);
  EXPECT_EQ(waiting.attempts(), 0);
  store_->full = false;
  EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(Get(id).attempts(), 1);
}

TEST_F(CrashTest, AfterARefusalTheRoundBeforeItIsNotedAgain) {
  absl::Notification noted, go_on;
  store_->after_note = [&] {
    if (noted.HasBeenNotified()) return;
    noted.Notify();
    go_on.WaitForNotification();
  };
  Start();
  const std::string first = Create(4).id();
  OpenGate();
  noted.WaitForNotification();
  store_->refuses_rounds = true;
  const std::string second = Create(2).id();
  go_on.Notify();
  while (store_->refused == 0) absl::SleepFor(absl::Milliseconds(2));
  ASSERT_TRUE(Cancel(second).ok());
  store_->refuses_rounds = false;
  WaitForEnd(first);
  scheduler_->Stop();
  // The store may say of the first note that it no longer holds.
  EXPECT_EQ(store_->rounds(), (Rounds{{first}, {first}, {}}));
}

TEST_F(CrashTest, ARefusedRoundIsForgottenWithItsJobs) {
  bool refused = false;
  options_.store_writes = [&](const absl::Status& status) { refused = !status.ok(); };
  Start();
  const std::string id = Create(3).id();
  store_->full = true;
  OpenGate();
  while (store_->refused < 5) absl::SleepFor(absl::Milliseconds(2));
  store_->full = false;
  ASSERT_TRUE(Cancel(id).ok());
  scheduler_->Stop();
  EXPECT_FALSE(refused);
}

TEST_F(CrashTest, AnOrderlyEndIsNobodysFault) {
  Start();
  OpenGate();
  const std::string running = Create(100'000).id();
  const std::string paused = Create(100'000).id();
  WaitForSteps(running, 2);
  WaitForSteps(paused, 2);
  ASSERT_TRUE(Do(&Scheduler::Pause, paused).ok());
  scheduler_->Stop();
  Start();
  EXPECT_EQ(*Recover(/*max_attempts=*/1), 2);
  WaitForSteps(running, Get(running).completed_iterations() + 2);
  ASSERT_TRUE(Do(&Scheduler::Resume, paused).ok());
  WaitForSteps(paused, Get(paused).completed_iterations() + 2);
  for (const std::string& id : {running, paused}) {
    EXPECT_EQ(Get(id).attempts(), 2);
    EXPECT_EQ(Get(id).crashes(), 0);
  }
}

TEST_F(CrashTest, PausingAndGivingWayAreNoNewAttempts) {
  Start();
  OpenGate();
  const std::string id = Create(100'000).id();
  for (int i = 0; i < 3; ++i) {
    WaitForSteps(id, Get(id).completed_iterations() + 2);
    ASSERT_TRUE(Do(&Scheduler::Pause, id).ok());
    ASSERT_TRUE(Do(&Scheduler::Resume, id).ok());
  }
  EXPECT_EQ(Get(id).attempts(), 1);
}

TEST_F(CrashTest, AStopBlamesNobodyWhileAStepIsStillUnderWay) {
  Start(Fault::kHang);
  const std::string id = Create(3, kPoison).id();
  OpenGate();
  while (store_->NotedRound()->empty()) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_FALSE(scheduler_->Stop(absl::Now()));
  EXPECT_TRUE(store_->NotedRound()->empty());
  release_.Notify();
  EXPECT_TRUE(scheduler_->Stop());
  EXPECT_EQ(Get(id).completed_iterations(), 1);
}

TEST_F(CrashTest, AStopWhileARoundIsBeingNotedBlamesNobody) {
  JobLedger ledger(converter_, *store_, feeds_, options_.store_retry, options_.probation, {});
  LiveJob live;
  live.job = Get(Leave(v1::Job::QUEUED));
  std::thread stop;
  store_->after_note = [&] {
    stop = std::thread([&] { ledger.Close(); });
    // For as long as the note is not told to the ledger, a stop that does not wait finds nothing.
    absl::SleepFor(absl::Milliseconds(50));
  };
  EXPECT_TRUE(ledger.Begin({&live}).ok());
  stop.join();
  EXPECT_TRUE(store_->NotedRound()->empty());
  // Nor does another round begin.
  EXPECT_TRUE(absl::IsCancelled(ledger.Begin({&live})));
  EXPECT_TRUE(store_->NotedRound()->empty());
}

TEST_F(CrashTest, OnlyThoseAtWorkAreBlamed) {
  Start();
  const std::string guilty = Leave(v1::Job::RUNNING);
  const std::string beside = Leave(v1::Job::RUNNING);
  const std::string elsewhere = Leave(v1::Job::RUNNING);
  DieIn({guilty, beside});
  EXPECT_EQ(*Recover(), 3);
  EXPECT_EQ(Get(guilty).crashes(), 1);
  EXPECT_EQ(Get(beside).crashes(), 1);
  EXPECT_EQ(Get(elsewhere).crashes(), 0);
  // A second start after a crash that came before any round: nobody is blamed twice.
  EXPECT_EQ(*Recover(), 3);
  EXPECT_EQ(Get(guilty).crashes(), 1);
}

TEST_F(CrashTest, WhoHadStoppedWorkingByThenIsNotBlamed) {
  Start();
  const std::string paused = Leave(v1::Job::PAUSED);
  const std::string parked = Leave(v1::Job::QUEUED);
  DieIn({paused, parked});
  ASSERT_TRUE(Recover().ok());
  OpenGate();
  ASSERT_TRUE(Do(&Scheduler::Resume, paused).ok());
  for (const std::string& id : {paused, parked}) EXPECT_EQ(WaitForEnd(id).crashes(), 0) << id;
}

TEST_F(CrashTest, SuspectsRunAloneAndNobodyWaitsForThem) {
  Start();
  const std::string one = Leave(v1::Job::RUNNING);
  const std::string two = Leave(v1::Job::RUNNING);
  DieIn({one, two});
  ASSERT_TRUE(Recover().ok());
  const size_t before = store_->rounds().size();
  const std::string third = Create(5).id();
  const std::string fourth = Create(5).id();
  OpenGate();
  for (const std::string& id : {one, two, third, fourth}) {
    EXPECT_EQ(WaitForEnd(id).state(), v1::Job::SUCCEEDED);
  }
  bool shared = false;
  int alone = 0;
  for (const auto& round : RoundsSince(before)) {
    shared |= round == std::vector<std::string>{third, fourth};
    if (round == std::vector<std::string>{one} || round == std::vector<std::string>{two}) {
      ++alone;
      continue;
    }
    for (const std::string& id : round) EXPECT_TRUE(id == third || id == fourth) << id;
  }
  EXPECT_TRUE(shared);
  EXPECT_GE(alone, 2);
  // All at the same pace: the last steps of all come after the first of all.
  const auto appended = store_->appended();
  ASSERT_EQ(appended.size(), 20u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(appended[i].second, 0) << i;
  for (size_t i = 16; i < 20; ++i) EXPECT_EQ(appended[i].second, 4) << i;
}

TEST_F(CrashTest, TooManyCrashesFailAJobWithTheReason) {
  Start();
  const std::string guilty = Leave(v1::Job::RUNNING, /*crashes=*/2);
  const std::string other = Leave(v1::Job::RUNNING, /*crashes=*/2);
  DieIn({guilty});
  OpenGate();
  EXPECT_EQ(*Recover(/*max_attempts=*/3), 1);
  const v1::Job failed = Get(guilty);
  ASSERT_EQ(failed.state(), v1::Job::FAILED);
  EXPECT_TRUE(failed.has_end_time());
  EXPECT_EQ(failed.crashes(), 3);
  EXPECT_EQ(failed.error().code(), 10) << "ABORTED";
  EXPECT_TRUE(absl::StrContains(failed.error().message(), "died 3 times"));
  EXPECT_TRUE(absl::StrContains(failed.error().message(), "--max-attempts is 3"));
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(failed.error().details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "MAX_ATTEMPTS_REACHED");
  EXPECT_EQ(WaitForEnd(other).state(), v1::Job::SUCCEEDED);
}

TEST_F(CrashTest, TimeOnTheDeviceWithoutACrashClearsAJob) {
  options_.probation = absl::Milliseconds(50);
  Start();
  const std::string suspect = Leave(v1::Job::RUNNING, /*crashes=*/0, /*iterations=*/100'000);
  // What a job had before the crash does not count.
  v1::Job job = Get(suspect);
  job.set_run_seconds(1000);
  ASSERT_TRUE(store_->UpdateJob(job).ok());
  DieIn({suspect});
  ASSERT_TRUE(Recover().ok());
  const size_t before = store_->rounds().size();
  const std::string other = Create(100'000).id();
  EXPECT_EQ(Get(suspect).crashes(), 1);
  OpenGate();
  while (Get(suspect).crashes() > 0) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_GE(Get(suspect).run_seconds(), 1000.05);
  WaitForSteps(suspect, Get(suspect).completed_iterations() + 5);
  scheduler_->Stop();
  const Rounds rounds = RoundsSince(before);
  EXPECT_EQ(rounds.front().size(), 1u);
  EXPECT_EQ(rounds.back(), Rounds::value_type());
  EXPECT_EQ(rounds[rounds.size() - 2], (Rounds::value_type{suspect, other}));
}

TEST_F(CrashTest, AJobOfAnotherModelWaitsForIt) {
  Start();
  OpenGate();
  const std::string id = LeaveForeign(v1::Job::RUNNING);
  const std::string paused = LeaveForeign(v1::Job::PAUSED);
  EXPECT_EQ(*Recover(), 2);
  // It holds up nobody.
  EXPECT_EQ(WaitForEnd(Create(5).id()).state(), v1::Job::SUCCEEDED);
  for (const std::string& each : {id, paused}) {
    v1::Job job = Get(each);
    EXPECT_EQ(job.state(), each == id ? v1::Job::QUEUED : v1::Job::PAUSED);
    EXPECT_EQ(job.completed_iterations(), 0);
    scheduler_->Describe(job);
    EXPECT_EQ(job.queue_position(), 0);
    EXPECT_TRUE(absl::StrContains(job.waits_for(), "another model")) << job.waits_for();
    EXPECT_TRUE(absl::StrContains(job.waits_for(), "0123"));
    EXPECT_TRUE(absl::StrContains(job.waits_for(), model_->fingerprint()));
  }
  EXPECT_EQ(Do(&Scheduler::Pause, id)->state(), v1::Job::PAUSED);
  EXPECT_EQ(Do(&Scheduler::Resume, paused)->state(), v1::Job::QUEUED);
  EXPECT_EQ(WaitForEnd(Create(5).id()).state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(Get(paused).completed_iterations(), 0);
  v1::Job cancelled = *Do(&Scheduler::Cancel, paused);
  EXPECT_EQ(cancelled.state(), v1::Job::CANCELLED);
  scheduler_->Describe(cancelled);
  EXPECT_EQ(cancelled.waits_for(), "");
}

TEST_F(CrashTest, AFullDiskAtTheStartKeepsJobsWaiting) {
  std::atomic<bool> told = false;
  options_.store_writes = [&](const absl::Status& status) { told = !status.ok(); };
  Start();
  const std::string good = Leave(v1::Job::RUNNING);
  const std::string bad = Leave(v1::Job::RUNNING, /*crashes=*/2);
  const std::string foreign = LeaveForeign(v1::Job::RUNNING);
  DieIn({good, bad, foreign});
  store_->full = true;
  ASSERT_EQ(*Recover(), 2);
  OpenGate();
  while (store_->refused < 10) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_TRUE(told);
  // As they were; those who watch wait.
  EXPECT_EQ(Get(good).state(), v1::Job::RUNNING);
  EXPECT_EQ(Get(good).completed_iterations(), 0);
  EXPECT_NE(feeds_.Find(bad), nullptr);
  store_->full = false;
  EXPECT_EQ(WaitForEnd(good).state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(Get(good).crashes(), 1);
  EXPECT_EQ(WaitForEnd(bad).state(), v1::Job::FAILED);
  while (Get(foreign).state() != v1::Job::QUEUED) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_EQ(Get(foreign).crashes(), 1);
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace epo
