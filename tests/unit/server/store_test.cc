// The store over real SQLite files in a temporary directory.
#include "server/store.h"

#include <SQLiteCpp/Database.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/store_compress.h"

// SQLite's syncs go through these: counted, and failed on demand.
static std::atomic<int> g_syncs = 0;
static std::atomic<bool> g_fail_syncs = false;

static int Sync(int fd) {
  ++g_syncs;
  if (!g_fail_syncs) return static_cast<int>(syscall(SYS_fdatasync, fd));
  errno = EIO;
  return -1;
}
extern "C" int fdatasync(int fd) { return Sync(fd); }
extern "C" int fsync(int fd) { return Sync(fd); }

namespace epo {
namespace {

using ::testing::TempDir;

// Waiting jobs of a client.
constexpr int kNoLimit = std::numeric_limits<int>::max();

#define EXPECT_STATUS(expected_code, expected_text, expression)                \
  do {                                                                         \
    const absl::Status actual = StatusOf(expression);                          \
    EXPECT_EQ(actual.code(), absl::StatusCode::expected_code) << actual;       \
    EXPECT_TRUE(absl::StrContains(actual.message(), expected_text)) << actual; \
  } while (false)

absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

v1::Job MakeJob(const std::string& id, v1::Job::State state = v1::Job::QUEUED) {
  v1::Job job;
  job.set_id(id);
  job.set_state(state);
  job.mutable_create_time()->set_seconds(1'700'000'000);
  job.mutable_spec()->set_tokens(12);
  return job;
}

StepRecord MakeStep(const std::string& id, int index) {
  StepRecord record;
  record.job = MakeJob(id, v1::Job::RUNNING);
  record.job.set_completed_iterations(index + 1);
  record.step.set_index(index);
  record.step.set_evaluations(INT64_C(264) * (index + 1));
  record.iteration.set_index(index);
  for (int i = 0; i < 264; ++i) {
    v1::TokenIds& ids = *record.iteration.add_ids();
    for (int j = 0; j < 12; ++j) ids.add_ids((index * 7919 + i * 104'729 + j * 1'299'709) % 49'152);
    record.iteration.add_target(static_cast<float>(i) * 0.37F);
    record.iteration.add_cross_entropy(static_cast<float>(index) * 0.11F);
  }
  // Zero bytes and invalid UTF-8, as a checkpoint has them.
  record.checkpoint = absl::StrCat(std::string("\0\xff", 2), index);
  return record;
}

template <typename Message>
void ExpectSame(const Message& actual, const Message& expected) {
  EXPECT_EQ(actual.SerializeAsString(), expected.SerializeAsString());
}

std::vector<std::string> Ids(const std::vector<v1::Job>& jobs) {
  std::vector<std::string> ids;
  ids.reserve(jobs.size());
  for (const v1::Job& job : jobs) ids.push_back(job.id());
  return ids;
}

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(TempDir(), "store_test.XXXXXX");
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override {
    g_fail_syncs = false;
    store_.reset();
    std::filesystem::remove_all(dir_);
  }

  void Open() {
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(dir_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void Reopen() {
    store_.reset();
    Open();
  }
  void Create(const v1::Job& job) {
    absl::StatusOr<Store::Created> created = store_->CreateJob(job, "", "", kNoLimit);
    ASSERT_TRUE(created.ok()) << created.status();
    ASSERT_TRUE(created->is_new);
  }
  void Append(const std::string& id, int first, int end) {
    for (int i = first; i < end; ++i) {
      absl::Status status = store_->AppendStep(MakeStep(id, i));
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  // Everything of a job that has had steps 0 to `steps` - 1.
  void ExpectSteps(const std::string& id, int steps) {
    absl::StatusOr<std::vector<v1::Step>> stored = store_->GetSteps(id, 0, 1'000'000);
    ASSERT_TRUE(stored.ok()) << stored.status();
    absl::StatusOr<std::vector<v1::Iteration>> iterations = store_->GetIterations(id, 0, 1'000'000);
    ASSERT_TRUE(iterations.ok()) << iterations.status();
    ASSERT_EQ(stored->size(), steps);
    ASSERT_EQ(iterations->size(), steps);
    for (int i = 0; i < steps; ++i) {
      const StepRecord expected = MakeStep(id, i);
      ExpectSame((*stored)[i], expected.step);
      ExpectSame((*iterations)[i], expected.iteration);
    }
    EXPECT_EQ(store_->GetCheckpoint(id).value(),
              steps == 0 ? "" : MakeStep(id, steps - 1).checkpoint);
    EXPECT_EQ(store_->GetJob(id).value().completed_iterations(), steps);
  }

  std::filesystem::path file() const { return dir_ / "epo.db"; }
  // Changes the file behind a closed store's back.
  void Sql(const std::string& sql) {
    SQLite::Database(file(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE).exec(sql);
  }
  int64_t SqlInt(const std::string& sql) {
    return SQLite::Database(file()).execAndGet(sql).getInt64();
  }

  std::filesystem::path dir_;
  std::unique_ptr<Store> store_;
};

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

  EXPECT_STATUS(kAlreadyExists, "id-1", store_->CreateJob(MakeJob("b"), "id-1", "re", kNoLimit));
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

TEST_F(StoreTest, ASecondServerIsRefused) {
  Open();
  EXPECT_STATUS(kFailedPrecondition, absl::StrCat("pid ", getpid()), Store::Open(dir_));
  EXPECT_STATUS(kFailedPrecondition, dir_.string(), Store::Open(dir_));
  Create(MakeJob("a"));
  Reopen();
}

TEST_F(StoreTest, MakesAMissingDirectoryWithItsParents) {
  dir_ /= "x/y/z";
  Open();
  Create(MakeJob("a"));
  EXPECT_TRUE(std::filesystem::exists(file()));
}

TEST_F(StoreTest, NamesADirectoryThatCannotBeUsed) {
  std::ofstream(dir_ / "file") << "x";
  EXPECT_STATUS(kFailedPrecondition, (dir_ / "file/state").string(),
                Store::Open(dir_ / "file/state"));
  EXPECT_STATUS(kFailedPrecondition, (dir_ / "file").string(), Store::Open(dir_ / "file"));
  // Nobody, root included, can make a file there.
  EXPECT_STATUS(kFailedPrecondition, "state directory /proc/self", Store::Open("/proc/self"));
  std::filesystem::create_directories(dir_ / "state/epo.db");
  EXPECT_STATUS(kFailedPrecondition, (dir_ / "state/epo.db").string(), Store::Open(dir_ / "state"));
}

TEST_F(StoreTest, RefusesANewerSchema) {
  Open();
  store_.reset();
  Sql("PRAGMA user_version = 99");
  EXPECT_STATUS(kFailedPrecondition,
                absl::StrCat(file().string(), ": schema version 99 is newer than version "),
                Store::Open(dir_));
}

TEST_F(StoreTest, BringsTheFirstSchemaToThisOne) {
  Sql("PRAGMA application_id = 0x65706f31");
  Sql("PRAGMA user_version = 1");
  Sql(R"sql(
    CREATE TABLE jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
                       state INTEGER NOT NULL, create_time INTEGER NOT NULL,
                       request_id TEXT UNIQUE, request BLOB NOT NULL, job BLOB NOT NULL);
    CREATE INDEX jobs_by_state ON jobs (state, seq);
    CREATE TABLE steps (job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
                        idx INTEGER NOT NULL, step BLOB NOT NULL, PRIMARY KEY (job, idx));
    CREATE TABLE iterations (job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
                             idx INTEGER NOT NULL, iteration BLOB NOT NULL, PRIMARY KEY (job, idx));
    CREATE TABLE checkpoints (job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
                              checkpoint BLOB NOT NULL);
    INSERT INTO jobs VALUES (7, 'jold', 1, 1, 'uuid', 'request', x'0a046a6f6c64');
  )sql");
  Open();
  EXPECT_EQ(Ids(store_->ListJobs({.client = ""})->jobs), (std::vector<std::string>{"jold"}));
  const absl::StatusOr<Store::Created> again =
      store_->CreateJob(MakeJob("jnew"), "uuid", "request", kNoLimit);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->job.id(), "jold");
  Append("jold", 0, 2);
  ExpectSteps("jold", 2);
}

TEST_F(StoreTest, RefusesAnotherProgramsDatabase) {
  Sql("CREATE TABLE jobs (id TEXT)");
  EXPECT_STATUS(kFailedPrecondition, "not an epo-server database", Store::Open(dir_));
  EXPECT_EQ(SqlInt("SELECT count(*) FROM sqlite_schema"), 1);
}

TEST_F(StoreTest, ReportsAFileThatIsNoDatabase) {
  std::ofstream(file()) << std::string(10'000, 'x');
  EXPECT_STATUS(kDataLoss, file().string(), Store::Open(dir_));
}

TEST_F(StoreTest, ReportsDamagedPages) {
  Open();
  Create(MakeJob("a"));
  Append("a", 0, 20);
  store_.reset();
  {
    std::fstream damage(file(), std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(4096);
    damage << std::string(std::filesystem::file_size(file()) - 4096, '\xa5');
  }
  Open();
  EXPECT_STATUS(kDataLoss, "read job a", store_->GetJob("a"));
  EXPECT_STATUS(kDataLoss, "append step 20 of job a", store_->AppendStep(MakeStep("a", 20)));
  EXPECT_STATUS(kDataLoss, file().string(), store_->UnfinishedJobs());
}

TEST_F(StoreTest, ReportsDamagedRows) {
  Open();
  Create(MakeJob("a"));
  Append("a", 0, 2);
  store_.reset();
  Sql("UPDATE iterations SET iteration = substr(iteration, 1, 99) || x'00' WHERE idx = 1");
  Sql("UPDATE steps SET step = x'ff' WHERE idx = 1");
  Open();
  EXPECT_TRUE(store_->GetIterations("a", 0, 1).ok());
  EXPECT_STATUS(kDataLoss, "iterations of job a", store_->GetIterations("a", 1, 1));
  EXPECT_STATUS(kDataLoss, "steps of job a", store_->GetSteps("a", 0, 2));
  for (const char* blob : {"x''", "x'28b52ffd'", "zeroblob(100)"}) {
    store_.reset();
    Sql(absl::StrCat("UPDATE iterations SET iteration = ", blob, ", idx = 0 WHERE idx = 0"));
    Sql("UPDATE jobs SET job = x'ff'");
    Open();
    EXPECT_STATUS(kDataLoss, "iterations of job a", store_->GetIterations("a", 0, 1));
    EXPECT_STATUS(kDataLoss, "job a", store_->GetJob("a"));
    EXPECT_STATUS(kDataLoss, "list jobs", store_->ListJobs({}));
  }
}

TEST(CompressTest, DetectsAFlippedBit) {
  const std::string bytes = MakeStep("a", 0).iteration.SerializeAsString();
  const std::string frame = Compress(bytes);
  EXPECT_LT(frame.size(), bytes.size());
  EXPECT_EQ(Decompress(frame), bytes);
  EXPECT_EQ(Decompress(Compress("")), "");
  // Some bits of a frame's header mean nothing.
  for (size_t i = 0; i < frame.size(); ++i) {
    std::string damaged = frame;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    ASSERT_EQ(Decompress(damaged).value_or(bytes), bytes) << "byte " << i;
    ASSERT_FALSE(Decompress(frame.substr(0, i))) << "byte " << i;
  }
}

// The connections that the process opens while one of these lives, in order: the writer first.
class Connections {
 public:
  Connections() {
    handles.clear();
    sqlite3_auto_extension(reinterpret_cast<void (*)()>(&Remember));
  }
  ~Connections() { sqlite3_reset_auto_extension(); }

  static inline std::vector<sqlite3*> handles;

 private:
  static int Remember(sqlite3* handle, char**, const void*) {
    handles.push_back(handle);
    return SQLITE_OK;
  }
};

TEST_F(StoreTest, AFullDiskLosesNothing) {
  Connections connections;
  Open();
  sqlite3* writer = Connections::handles.at(0);
  Create(MakeJob("a"));
  sqlite3_exec(writer, "PRAGMA max_page_count = 100", nullptr, nullptr, nullptr);
  int steps = 0;
  absl::Status status;
  while (status.ok() && steps < 1000) {
    status = store_->AppendStep(MakeStep("a", steps));
    if (status.ok()) ++steps;
  }
  EXPECT_STATUS(kResourceExhausted,
                absl::StrCat("append step ", steps, " of job a in ", file().string()), status);
  EXPECT_GT(steps, 5);
  ExpectSteps("a", steps);
  EXPECT_STATUS(kResourceExhausted, "create job b",
                store_->CreateJob(MakeJob("b"), "", std::string(1 << 20, 'x'), kNoLimit));
  EXPECT_STATUS(kNotFound, "b", store_->GetJob("b"));

  // Space returns.
  sqlite3_exec(writer, "PRAGMA max_page_count = 100000", nullptr, nullptr, nullptr);
  Append("a", steps, steps + 5);
  Reopen();
  ExpectSteps("a", steps + 5);
}

TEST_F(StoreTest, SyncsWhatMustSurvivePowerLoss) {
  Open();
  Create(MakeJob("warm-up"));
  g_syncs = 0;
  Create(MakeJob("a"));
  EXPECT_GT(g_syncs.exchange(0), 0);
  Append("a", 0, 3);
  ASSERT_TRUE(store_->UpdateJob(MakeJob("a", v1::Job::RUNNING)).ok());
  EXPECT_EQ(g_syncs.exchange(0), 0);
  ASSERT_TRUE(store_->UpdateJob(MakeJob("a", v1::Job::SUCCEEDED)).ok());
  EXPECT_GT(g_syncs.exchange(0), 0);
  ASSERT_TRUE(store_->DeleteJob("a").ok());
  EXPECT_GT(g_syncs.exchange(0), 0);
  Create(MakeJob("b"));
  g_syncs = 0;
  StepRecord last = MakeStep("b", 0);
  last.job.set_state(v1::Job::SUCCEEDED);
  ASSERT_TRUE(store_->AppendStep(last).ok());
  EXPECT_GT(g_syncs.exchange(0), 0);
}

TEST_F(StoreTest, AFailedSyncIsAFailedCreate) {
  Open();
  Create(MakeJob("a"));
  g_fail_syncs = true;
  EXPECT_STATUS(kUnavailable, "create job b", store_->CreateJob(MakeJob("b"), "id", "x", kNoLimit));
  EXPECT_STATUS(kNotFound, "b", store_->GetJob("b"));
  g_fail_syncs = false;
  EXPECT_TRUE(store_->CreateJob(MakeJob("b"), "id", "x", kNoLimit).value().is_new);
  Reopen();
  EXPECT_EQ(Ids(store_->UnfinishedJobs().value()), (std::vector<std::string>{"a", "b"}));
}

TEST_F(StoreTest, ReadsDoNotWaitForAWrite) {
  Open();
  Create(MakeJob("a"));
  // Another process's transaction holds up our writer, until its patience ends.
  SQLite::Database other(file(), SQLite::OPEN_READWRITE);
  other.exec("BEGIN IMMEDIATE; UPDATE jobs SET state = 4");
  std::atomic<bool> written = false;
  std::thread writer([&] {
    EXPECT_STATUS(kUnavailable, "update job a", store_->UpdateJob(MakeJob("a", v1::Job::RUNNING)));
    written = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(store_->GetJob("a").value().state(), v1::Job::QUEUED);
  EXPECT_EQ(store_->ListJobs({}).value().jobs.size(), 1);
  EXPECT_FALSE(written);
  writer.join();
  other.exec("ROLLBACK");
  EXPECT_TRUE(store_->UpdateJob(MakeJob("a", v1::Job::RUNNING)).ok());
}

TEST_F(StoreTest, ReadersSeeWholeStepsWhileWritersWrite) {
  constexpr int kSteps = 200;
  const std::vector<std::string> ids = {"a", "b"};
  Open();
  for (const std::string& id : ids) Create(MakeJob(id));
  std::vector<std::thread> threads;
  for (const std::string& id : ids) {
    threads.emplace_back([this, &id] { Append(id, 0, kSteps); });
    for (int reader = 0; reader < 3; ++reader) {
      threads.emplace_back([this, &id] {
        int seen = 0;
        while (seen < kSteps && !HasFailure()) {
          const int completed = store_->GetJob(id).value().completed_iterations();
          const std::vector<v1::Step> steps = store_->GetSteps(id, seen, kSteps).value();
          ASSERT_GE(seen + static_cast<int>(steps.size()), completed);
          for (const v1::Step& step : steps) ASSERT_EQ(step.index(), seen++);
          ASSERT_TRUE(store_->ListJobs({}).ok());
        }
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& id : ids) ExpectSteps(id, kSteps);
}

// Creates jobs job-`first`, ... and gives each three steps, telling `pipe` after each acknowledged
// call, until killed.
[[noreturn]] void WriteUntilKilled(const std::filesystem::path& dir, int first, int pipe) {
  std::unique_ptr<Store> store = Store::Open(dir).value();
  const auto tell = [pipe] {
    if (write(pipe, ".", 1) != 1) _exit(1);
  };
  for (int number = first;; ++number) {
    const std::string id = absl::StrCat("job-", number);
    if (!store->CreateJob(MakeJob(id), id, id, kNoLimit).ok()) _exit(1);
    tell();
    for (int i = 0; i < 3; ++i) {
      if (!store->AppendStep(MakeStep(id, i)).ok()) _exit(1);
      tell();
    }
  }
}

TEST_F(StoreTest, KilledServersLoseNothingAcknowledged) {
  int first = 0;
  for (int round = 0; round < 8; ++round) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) WriteUntilKilled(dir_, first, ends[1]);
    close(ends[1]);
    int acknowledged = 0;
    char byte;
    while (acknowledged < 20 + round * 7 && read(ends[0], &byte, 1) == 1) ++acknowledged;
    if (round == 0) {
      EXPECT_STATUS(kFailedPrecondition, absl::StrCat("pid ", child), Store::Open(dir_));
    }
    usleep(round * 150);  // spreads the kills over a write
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    while (read(ends[0], &byte, 1) == 1) ++acknowledged;
    close(ends[0]);

    Open();
    int jobs = 0;
    int written = 0;
    for (;; ++jobs) {
      const std::string id = absl::StrCat("job-", first + jobs);
      absl::StatusOr<v1::Job> job = store_->GetJob(id);
      if (!job.ok()) break;
      ExpectSteps(id, job->completed_iterations());
      written += 1 + job->completed_iterations();
    }
    // The last call may have been committed and not yet told.
    EXPECT_GE(written, acknowledged);
    EXPECT_LE(written, acknowledged + 1);
    first += jobs;
    EXPECT_EQ(store_->UnfinishedJobs().value().size(), first);
    store_.reset();
  }
}

}  // namespace
}  // namespace epo
