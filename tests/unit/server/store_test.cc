// What a store keeps and finds again.
#include "tests/unit/server/store_fixture.h"

namespace epo {
namespace {

TEST_F(StoreTest, KeepsJobsAcrossReopening) {
  Open();
  v1::Job job = MakeJob("a");
  Create(job);
  ExpectSame(store_->GetJob("a").value(), job);
  Reopen();
  ExpectSame(store_->GetJob("a").value(), job);

  job.set_state(v1::Job::FAILED);
  job.mutable_error()->set_message("out of memory");
  ASSERT_TRUE(store_->UpdateJob(job).ok());
  ExpectSame(store_->GetJob("a").value(), job);
  Reopen();
  ExpectSame(store_->GetJob("a").value(), job);
  EXPECT_EQ(SqlInt("SELECT create_time FROM jobs"), 1'700'000'000'000'000);
}

TEST_F(StoreTest, AnUnknownJobIsNotFound) {
  Open();
  EXPECT_STATUS(kNotFound, "nope", store_->GetJob("nope"));
  EXPECT_STATUS(kNotFound, "nope", store_->UpdateJob(MakeJob("nope")));
  EXPECT_STATUS(kNotFound, "nope", store_->AppendStep(MakeStep("nope", 0)));
  EXPECT_STATUS(kNotFound, "nope", store_->DeleteJob("nope"));
  EXPECT_STATUS(kNotFound, "nope", store_->GetCheckpoint("nope"));
  EXPECT_STATUS(kNotFound, "nope", store_->GetSteps("nope", 0, 1));
  EXPECT_STATUS(kNotFound, "nope", store_->GetIterations("nope", 0, 1));
}

TEST_F(StoreTest, ARepeatedRequestReturnsTheFirstJob) {
  Open();
  const std::string request("re\0quest", 8);
  ASSERT_TRUE(store_->CreateJob(MakeJob("a"), "id-1", request, kNoLimit).value().is_new);
  const v1::Job running = MakeJob("a", v1::Job::RUNNING);
  ASSERT_TRUE(store_->UpdateJob(running).ok());
  Reopen();
  const Store::Created repeat = store_->CreateJob(MakeJob("b"), "id-1", request, kNoLimit).value();
  EXPECT_FALSE(repeat.is_new);
  ExpectSame(repeat.job, running);

  ExpectSame(store_->FindRepeat("", "id-1", request)->value(), running);
  EXPECT_FALSE(store_->FindRepeat("", "id-2", request)->has_value());
  EXPECT_FALSE(store_->FindRepeat("ann", "id-1", request)->has_value());

  EXPECT_STATUS(kAlreadyExists, "id-1", store_->CreateJob(MakeJob("b"), "id-1", "re", kNoLimit));
  EXPECT_STATUS(kAlreadyExists, "id-1", store_->FindRepeat("", "id-1", "re"));
  EXPECT_STATUS(kNotFound, "b", store_->GetJob("b"));
  EXPECT_TRUE(store_->CreateJob(MakeJob("b"), "id-2", request, kNoLimit).value().is_new);
  // Without an id nothing is a repeat.
  EXPECT_TRUE(store_->CreateJob(MakeJob("c"), "", request, kNoLimit).value().is_new);
  EXPECT_TRUE(store_->CreateJob(MakeJob("d"), "", request, kNoLimit).value().is_new);
  EXPECT_STATUS(kAlreadyExists, "job d", store_->CreateJob(MakeJob("d"), "", request, kNoLimit));
}

TEST_F(StoreTest, AppendsStepsInOrderOnly) {
  Open();
  Create(MakeJob("a"));
  Create(MakeJob("b"));
  ExpectSteps("a", 0);
  Append("a", 0, 3);
  Append("b", 0, 1);
  EXPECT_STATUS(kFailedPrecondition, "step 2 of job a", store_->AppendStep(MakeStep("a", 2)));
  EXPECT_STATUS(kFailedPrecondition, "next one, 3", store_->AppendStep(MakeStep("a", 4)));
  StepRecord mixed = MakeStep("a", 3);
  mixed.iteration.set_index(2);
  EXPECT_STATUS(kInvalidArgument, "iteration 2", store_->AppendStep(mixed));
  ExpectSteps("a", 3);
  Reopen();
  ExpectSteps("a", 3);
  Append("a", 3, 5);
  ExpectSteps("a", 5);
  ExpectSteps("b", 1);
}

TEST_F(StoreTest, ReadsARangeOfSteps) {
  Open();
  Create(MakeJob("a"));
  Append("a", 0, 5);
  const std::vector<v1::Step> steps = store_->GetSteps("a", 1, 2).value();
  ASSERT_EQ(steps.size(), 2);
  EXPECT_EQ(steps[0].index(), 1);
  EXPECT_EQ(steps[1].index(), 2);
  const std::vector<v1::Iteration> iterations = store_->GetIterations("a", 4, 2).value();
  ASSERT_EQ(iterations.size(), 1);
  EXPECT_EQ(iterations[0].index(), 4);
  EXPECT_TRUE(store_->GetSteps("a", 5, 2).value().empty());
  EXPECT_STATUS(kInvalidArgument, "limit", store_->GetSteps("a", 0, 0));
  EXPECT_STATUS(kInvalidArgument, "limit", store_->GetIterations("a", 0, -1));
}

TEST_F(StoreTest, ListsNewestFirstPageByPage) {
  Open();
  EXPECT_TRUE(store_->ListJobs({}).value().jobs.empty());
  for (const char* id : {"a", "b", "c", "d"}) Create(MakeJob(id));
  JobPage page = store_->ListJobs({.page_size = 2}).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"d", "c"}));
  ASSERT_FALSE(page.next_page_token.empty());
  // A job that comes or goes between pages shifts none of the others.
  Create(MakeJob("e"));
  ASSERT_TRUE(store_->DeleteJob("c").ok());
  page = store_->ListJobs({.page_size = 2, .page_token = page.next_page_token}).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(page.next_page_token, "");
}

TEST_F(StoreTest, APageOfManyBytesEndsEarly) {
  Open();
  for (const char* id : {"a", "b", "c", "d"}) {
    v1::Job job = MakeJob(id);
    // Two of these fit a page, but the last alone is more than one.
    job.mutable_spec()->add_contexts()->mutable_prefix()->set_text(
        std::string((id[0] == 'a' ? 4 : 1) << 20, 'x'));
    Create(job);
  }
  JobPage page = store_->ListJobs({.page_size = 1000}).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"d", "c"}));
  page = store_->ListJobs({.page_size = 1000, .page_token = page.next_page_token}).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"b"}));
  page = store_->ListJobs({.page_size = 1000, .page_token = page.next_page_token}).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"a"}));
  EXPECT_EQ(page.next_page_token, "");
}

TEST_F(StoreTest, ListsByState) {
  Open();
  Create(MakeJob("a"));
  Create(MakeJob("b", v1::Job::RUNNING));
  Create(MakeJob("c", v1::Job::CANCELLED));
  Create(MakeJob("d"));
  Create(MakeJob("e", v1::Job::RUNNING));
  ASSERT_TRUE(store_->UpdateJob(MakeJob("e", v1::Job::SUCCEEDED)).ok());
  ListQuery query{.page_size = 2, .states = {v1::Job::QUEUED, v1::Job::RUNNING}};
  JobPage page = store_->ListJobs(query).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"d", "b"}));
  query.page_token = page.next_page_token;
  page = store_->ListJobs(query).value();
  EXPECT_EQ(Ids(page.jobs), (std::vector<std::string>{"a"}));
  EXPECT_EQ(page.next_page_token, "");
  EXPECT_EQ(Ids(store_->ListJobs({.states = {v1::Job::SUCCEEDED}}).value().jobs),
            (std::vector<std::string>{"e"}));
  EXPECT_EQ(Ids(store_->UnfinishedJobs().value()), (std::vector<std::string>{"a", "b", "d"}));
}

TEST_F(StoreTest, ListsByClient) {
  Open();
  for (int i = 0; i < 6; ++i) {
    v1::Job job = MakeJob(absl::StrCat("j", i), i < 3 ? v1::Job::QUEUED : v1::Job::RUNNING);
    job.set_client(i % 2 == 0 ? "alice" : "bob");
    Create(job);
  }
  Create(MakeJob("nobodys"));
  ListQuery query{.page_size = 2, .client = "alice"};
  const absl::StatusOr<JobPage> first = store_->ListJobs(query);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(Ids(first->jobs), (std::vector<std::string>{"j4", "j2"}));
  query.page_token = first->next_page_token;
  const absl::StatusOr<JobPage> second = store_->ListJobs(query);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(Ids(second->jobs), (std::vector<std::string>{"j0"}));
  EXPECT_EQ(second->next_page_token, "");

  EXPECT_EQ(Ids(store_->ListJobs({.states = {v1::Job::RUNNING}, .client = "bob"})->jobs),
            (std::vector<std::string>{"j5", "j3"}));
  EXPECT_EQ(Ids(store_->ListJobs({.client = ""})->jobs), (std::vector<std::string>{"nobodys"}));
  EXPECT_EQ(store_->ListJobs({})->jobs.size(), 7);
}

TEST_F(StoreTest, EachClientHasRequestIdsOfItsOwn) {
  Open();
  v1::Job alices = MakeJob("j1");
  alices.set_client("alice");
  v1::Job bobs = MakeJob("j2");
  bobs.set_client("bob");
  ASSERT_TRUE(store_->CreateJob(alices, "uuid", "request", kNoLimit)->is_new);
  EXPECT_TRUE(store_->CreateJob(bobs, "uuid", "request", kNoLimit)->is_new);
  EXPECT_TRUE(store_->CreateJob(MakeJob("j3"), "uuid", "request", kNoLimit)->is_new);
  const absl::StatusOr<Store::Created> again = store_->CreateJob(bobs, "uuid", "request", kNoLimit);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->is_new);
  EXPECT_EQ(again->job.id(), "j2");
}

TEST_F(StoreTest, BoundsAClientsWaitingJobs) {
  Open();
  const auto job = [](const std::string& id, const std::string& client,
                      v1::Job::State state = v1::Job::QUEUED) {
    v1::Job made = MakeJob(id, state);
    made.set_client(client);
    return made;
  };
  ASSERT_TRUE(store_->CreateJob(job("a1", "alice"), "id", "x", 2)->is_new);
  ASSERT_TRUE(store_->CreateJob(job("a2", "alice", v1::Job::PAUSED), "", "", 2)->is_new);
  EXPECT_STATUS(kOutOfRange, "alice", store_->CreateJob(job("a3", "alice"), "", "", 2));
  EXPECT_STATUS(kNotFound, "a3", store_->GetJob("a3"));
  EXPECT_TRUE(store_->CreateJob(job("b1", "bob"), "", "", 2)->is_new);
  // A repeat makes no job.
  EXPECT_FALSE(store_->CreateJob(job("a4", "alice"), "id", "x", 2)->is_new);
  ASSERT_TRUE(store_->UpdateJob(job("a1", "alice", v1::Job::RUNNING)).ok());
  EXPECT_TRUE(store_->CreateJob(job("a5", "alice"), "", "", 2)->is_new);
}

TEST_F(StoreTest, RefusesABadPage) {
  Open();
  for (int i = 0; i < 3; ++i) Create(MakeJob(absl::StrCat("j", i)));
  const std::string good = store_->ListJobs({.page_size = 1}).value().next_page_token;
  for (const std::string& token :
       {std::string("garbage"), std::string("%%%"), std::string("\0\xff", 2),
        std::string(10'000, 'A'), good + "AAAA", good.substr(1), std::string("LTE"),
        std::string("1' OR 1=1")}) {
    EXPECT_STATUS(kInvalidArgument, "page_token", store_->ListJobs({.page_token = token}));
  }
  for (int size : {0, -1, 1001}) {
    EXPECT_STATUS(kInvalidArgument, "page_size", store_->ListJobs({.page_size = size}));
  }
}

TEST_F(StoreTest, DeletesAJobWithAllThatBelongsToIt) {
  Open();
  ASSERT_TRUE(store_->CreateJob(MakeJob("a"), "id-1", "x", kNoLimit).ok());
  Create(MakeJob("b"));
  Append("a", 0, 3);
  Append("b", 0, 2);
  ASSERT_TRUE(store_->DeleteJob("a").ok());
  EXPECT_STATUS(kNotFound, "no job a", store_->GetJob("a"));
  ExpectSteps("b", 2);
  EXPECT_TRUE(store_->CreateJob(MakeJob("a"), "id-1", "y", kNoLimit).value().is_new);
  ExpectSteps("a", 0);
  store_.reset();
  EXPECT_EQ(SqlInt("SELECT count(*) FROM steps"), 2);
  EXPECT_EQ(SqlInt("SELECT count(*) FROM iterations"), 2);
  EXPECT_EQ(SqlInt("SELECT count(*) FROM checkpoints"), 1);
}

}  // namespace
}  // namespace epo
