// Sweeps in the store: all of one or nothing, and what its jobs say of it.
#include "tests/unit/server/store_fixture.h"

namespace epo {
namespace {

class StoreSweepsTest : public StoreTest {
 protected:
  absl::StatusOr<Store::CreatedSweep> CreateSweep(const v1::Sweep& sweep,
                                                  const std::string& request_id = "",
                                                  int max_waiting = kNoLimit) {
    return store_->CreateSweep(sweep, MakeSweepJobs(sweep), request_id, sweep.id(), max_waiting);
  }
};

TEST_F(StoreSweepsTest, KeepsASweepAndItsJobsWhole) {
  Open();
  Create(MakeJob("before"));
  const v1::Sweep sweep = MakeSweep("sweep-a", 3, 2);
  const absl::StatusOr<Store::CreatedSweep> created = CreateSweep(sweep);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_TRUE(created->is_new);
  EXPECT_EQ(created->sweep.state(), v1::Sweep::QUEUED);
  EXPECT_EQ(created->sweep.jobs().queued(), 6);
  Create(MakeJob("after"));
  Reopen();
  ExpectSame(store_->GetSweep("sweep-a").value(), created->sweep);
  const std::vector<v1::Job> jobs = MakeSweepJobs(sweep);
  for (const v1::Job& job : jobs) ExpectSame(store_->GetJob(job.id()).value(), job);
  // What they have in common is there once.
  EXPECT_LT(SqlInt("SELECT max(length(job)) FROM jobs WHERE sweep IS NOT NULL"),
            jobs[0].ByteSizeLong() - 4);
  const JobPage page = store_->ListJobs({.page_size = 1000, .sweep = "sweep-a"}).value();
  ASSERT_EQ(page.jobs.size(), 6);
  for (int i = 0; i < 6; ++i) ExpectSame(page.jobs[i], jobs[5 - i]);
  EXPECT_EQ(Ids(store_->SweepJobs("sweep-a", 2, 3).value()),
            (std::vector<std::string>{"sweep-a-j2", "sweep-a-j3", "sweep-a-j4"}));
  ExpectSame(store_->SweepJobs("sweep-a", 2, 3)->front(), jobs[2]);
  EXPECT_EQ(store_->UnfinishedJobs()->size(), 8);
  ExpectSame(store_->UnfinishedJobs().value()[1], jobs[0]);
  EXPECT_STATUS(kNotFound, "no sweep sweep-b", store_->GetSweep("sweep-b"));
  EXPECT_STATUS(kNotFound, "no sweep sweep-b", store_->SweepJobs("sweep-b", 0, 1));
}

TEST_F(StoreSweepsTest, TellsHowItsJobsAre) {
  Open();
  const v1::Sweep sweep = MakeSweep("sweep-a", 2, 2);
  ASSERT_TRUE(CreateSweep(sweep).ok());
  std::vector<v1::Job> jobs = MakeSweepJobs(sweep);
  const auto move = [&](int i, v1::Job::State state, int steps) {
    v1::Job& job = jobs[i];
    job.set_state(state);
    job.set_completed_iterations(steps);
    job.set_evaluations(100 * steps);
    job.set_run_seconds(0.5 * steps);
    job.mutable_start_time()->set_seconds(50 - i);
    if (state != v1::Job::PAUSED && state != v1::Job::RUNNING) {
      job.mutable_end_time()->set_seconds(90 + i);
    }
    return job;
  };
  ASSERT_TRUE(store_->UpdateJob(move(0, v1::Job::RUNNING, 3)).ok());
  v1::Sweep now = store_->GetSweep("sweep-a").value();
  EXPECT_EQ(now.state(), v1::Sweep::RUNNING);
  EXPECT_EQ(now.completed_iterations(), 3);
  EXPECT_EQ(now.total_iterations(), 40);
  EXPECT_EQ(now.start_time().seconds(), 50);

  ASSERT_TRUE(
      store_->UpdateJobs({move(0, v1::Job::SUCCEEDED, 10), move(3, v1::Job::CANCELLED, 2)}).ok());
  ASSERT_TRUE(store_->UpdateJobs({move(1, v1::Job::PAUSED, 1), move(2, v1::Job::PAUSED, 1)}).ok());
  now = store_->GetSweep("sweep-a").value();
  EXPECT_EQ(now.state(), v1::Sweep::PAUSED);
  EXPECT_FALSE(now.has_end_time());
  EXPECT_EQ(now.jobs().paused(), 2);
  EXPECT_EQ(now.completed_iterations(), 14);
  EXPECT_EQ(now.evaluations(), 1400);
  EXPECT_EQ(now.run_seconds(), 7);
  EXPECT_EQ(now.start_time().seconds(), 47);

  ASSERT_TRUE(
      store_->UpdateJobs({move(1, v1::Job::SUCCEEDED, 10), move(2, v1::Job::SUCCEEDED, 10)}).ok());
  now = store_->GetSweep("sweep-a").value();
  EXPECT_EQ(now.state(), v1::Sweep::CANCELLED);
  EXPECT_EQ(now.end_time().seconds(), 93);
  ASSERT_TRUE(store_->UpdateJob(move(1, v1::Job::FAILED, 10)).ok());
  EXPECT_EQ(store_->GetSweep("sweep-a")->state(), v1::Sweep::FAILED);
  ExpectSame(store_->GetJob(jobs[1].id()).value(), jobs[1]);
}

TEST_F(StoreSweepsTest, ARepeatedRequestReturnsTheFirstSweep) {
  Open();
  const v1::Sweep sweep = MakeSweep("sweep-a", 2, 1, "ann");
  ASSERT_TRUE(CreateSweep(sweep, "id-1").ok());
  ExpectSame(store_->FindSweepRepeat("ann", "id-1", "sweep-a")->value(),
             store_->GetSweep("sweep-a").value());
  EXPECT_STATUS(kAlreadyExists, "sweep-a", store_->FindSweepRepeat("ann", "id-1", "other"));
  EXPECT_FALSE(store_->FindSweepRepeat("bob", "id-1", "sweep-a")->has_value());
  EXPECT_FALSE(store_->FindRepeat("ann", "id-1", "sweep-a")->has_value());
  v1::Sweep again = sweep;
  again.set_id("sweep-b");
  const auto repeated = store_->CreateSweep(again, MakeSweepJobs(again), "id-1", "sweep-a", 2);
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_FALSE(repeated->is_new);
  ExpectSame(repeated->sweep, store_->GetSweep("sweep-a").value());
  EXPECT_EQ(store_->UnfinishedJobs()->size(), 2);
  EXPECT_STATUS(kAlreadyExists, "that of sweep-a",
                store_->CreateSweep(again, MakeSweepJobs(again), "id-1", "other", kNoLimit));
  again.set_client("bob");
  EXPECT_TRUE(CreateSweep(again, "id-1")->is_new);
}

TEST_F(StoreSweepsTest, AreRefusedWholeByTheBoundOfWaitingJobs) {
  Open();
  v1::Job waiting = MakeJob("a");
  waiting.set_client("ann");
  Create(waiting);
  EXPECT_STATUS(kOutOfRange, "more than 6",
                CreateSweep(MakeSweep("sweep-a", 3, 2, "ann"), "id-1", /*max_waiting=*/6));
  EXPECT_STATUS(kNotFound, "sweep-a", store_->GetSweep("sweep-a"));
  EXPECT_EQ(store_->UnfinishedJobs()->size(), 1);
  EXPECT_TRUE(CreateSweep(MakeSweep("sweep-b", 3, 2, "bob"), "id-1", 6).ok());
  EXPECT_TRUE(CreateSweep(MakeSweep("sweep-a", 3, 2, "ann"), "id-1", 7).ok());
}

TEST_F(StoreSweepsTest, ListsNewestFirstPageByPageAndByClient) {
  Open();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(
        CreateSweep(MakeSweep(absl::StrCat("sweep-", i), 1, 1, i % 2 == 0 ? "ann" : "bob")).ok());
  }
  ListQuery query{.page_size = 2};
  std::vector<std::string> listed;
  do {
    const SweepPage page = store_->ListSweeps(query).value();
    for (const v1::Sweep& sweep : page.sweeps) {
      listed.push_back(sweep.id());
      ExpectSame(sweep, store_->GetSweep(sweep.id()).value());
    }
    query.page_token = page.next_page_token;
  } while (!query.page_token.empty());
  EXPECT_EQ(listed,
            (std::vector<std::string>{"sweep-4", "sweep-3", "sweep-2", "sweep-1", "sweep-0"}));
  EXPECT_EQ(store_->ListSweeps({.client = "bob"})->sweeps.size(), 2);
  // A page of jobs is no page of sweeps.
  const std::string of_jobs = store_->ListJobs({.page_size = 1})->next_page_token;
  EXPECT_STATUS(kInvalidArgument, "page_token", store_->ListSweeps({.page_token = of_jobs}));
  EXPECT_STATUS(kInvalidArgument, "page_size", store_->ListSweeps({.page_size = 0}));
}

TEST_F(StoreSweepsTest, APageOfManyBytesEndsEarly) {
  Open();
  for (const char* id : {"sweep-0", "sweep-1", "sweep-2"}) {
    v1::Sweep sweep = MakeSweep(id, 1, 1);
    sweep.mutable_spec()->mutable_job()->add_contexts()->mutable_prefix()->set_text(
        std::string(2 << 20, 'x'));
    ASSERT_TRUE(CreateSweep(sweep).ok());
  }
  ListQuery query{.page_size = 1000};
  int pages = 0;
  do {
    const SweepPage page = store_->ListSweeps(query).value();
    EXPECT_EQ(page.sweeps.size(), 1);
    query.page_token = page.next_page_token;
    ++pages;
  } while (!query.page_token.empty());
  EXPECT_EQ(pages, 3);
}

TEST_F(StoreSweepsTest, AreDeletedWithAllTheirJobs) {
  Open();
  Create(MakeJob("a"));
  Append("a", 0, 2);
  const v1::Sweep sweep = MakeSweep("sweep-a", 2, 2);
  ASSERT_TRUE(CreateSweep(sweep, "id-1").ok());
  for (v1::Job& job : MakeSweepJobs(sweep)) {
    StepRecord step = MakeStep(job.id(), 0);
    *step.job.mutable_spec() = job.spec();
    step.job.set_sweep(job.sweep());
    ASSERT_TRUE(store_->AppendStep(step).ok());
  }
  ASSERT_TRUE(store_->DeleteSweep("sweep-a").ok());
  EXPECT_STATUS(kNotFound, "sweep-a", store_->DeleteSweep("sweep-a"));
  EXPECT_STATUS(kNotFound, "sweep-a", store_->GetSweep("sweep-a"));
  ExpectSteps("a", 2);
  EXPECT_TRUE(CreateSweep(sweep, "id-1")->is_new);
  store_.reset();
  EXPECT_EQ(SqlInt("SELECT count(*) FROM steps"), 2);
  EXPECT_EQ(SqlInt("SELECT count(*) FROM iterations"), 2);
  EXPECT_EQ(SqlInt("SELECT count(*) FROM checkpoints"), 1);
  EXPECT_EQ(SqlInt("SELECT count(*) FROM jobs"), 5);
}

TEST_F(StoreSweepsTest, UpdatesAllOrNone) {
  Open();
  Create(MakeJob("a"));
  EXPECT_STATUS(
      kNotFound, "no job b",
      store_->UpdateJobs({MakeJob("a", v1::Job::CANCELLED), MakeJob("b", v1::Job::CANCELLED)}));
  EXPECT_EQ(store_->GetJob("a")->state(), v1::Job::QUEUED);
}

}  // namespace
}  // namespace epo
