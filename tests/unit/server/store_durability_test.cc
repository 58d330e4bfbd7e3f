// A store on a full or failing disk, under a killed server, and with readers beside its writer.
#include <sqlite3.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/unit/server/store_fixture.h"

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
  ASSERT_TRUE(store_->NoteRound({"a"}, {}).ok());
  EXPECT_EQ(g_syncs.exchange(0), 0);
  ASSERT_TRUE(store_->NoteRound({"a"}, {MakeJob("a", v1::Job::RUNNING)}).ok());
  EXPECT_GT(g_syncs.exchange(0), 0);
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

// Calls `body` in a process that ends without closing anything.
template <typename Body>
void InAKilledProcess(Body body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
}

TEST_F(StoreTest, ARoundWhoseNoteWasNotSyncedNeverBegan) {
  InAKilledProcess([this] {
    Open();
    Create(MakeJob("a"));
    g_fail_syncs = true;
    if (store_->NoteRound({"a"}, {MakeJob("a", v1::Job::RUNNING)}).ok()) _exit(1);
  });
  Open();
  // The bytes had been written all the same.
  EXPECT_EQ(store_->GetJob("a")->state(), v1::Job::RUNNING);
  EXPECT_TRUE(store_->NotedRound()->empty());
  store_.reset();
  InAKilledProcess([this] {
    Open();
    if (!store_->NoteRound({"a"}, {}).ok()) _exit(1);
  });
  Open();
  EXPECT_EQ(store_->NotedRound().value(), (std::vector<std::string>{"a"}));
}

TEST_F(StoreTest, NothingOfASweepIsThereAfterAFailedCommit) {
  Connections connections;
  Open();
  sqlite3* writer = Connections::handles.at(0);
  Create(MakeJob("a"));
  const v1::Sweep sweep = MakeSweep("sweep-a", 100, 10);
  const std::vector<v1::Job> jobs = MakeSweepJobs(sweep);
  const auto expect_nothing = [&] {
    EXPECT_STATUS(kNotFound, "sweep-a", store_->GetSweep("sweep-a"));
    EXPECT_STATUS(kNotFound, "j0", store_->GetJob(jobs.front().id()));
    EXPECT_FALSE(store_->FindSweepRepeat("", "id", "x")->has_value());
    EXPECT_EQ(Ids(store_->UnfinishedJobs().value()), (std::vector<std::string>{"a"}));
  };
  g_fail_syncs = true;
  EXPECT_STATUS(kUnavailable, "create sweep sweep-a",
                store_->CreateSweep(sweep, jobs, "id", "x", kNoLimit));
  g_fail_syncs = false;
  expect_nothing();
  // The disk becomes full in the middle of the jobs.
  sqlite3_exec(writer, "PRAGMA max_page_count = 45", nullptr, nullptr, nullptr);
  EXPECT_STATUS(kResourceExhausted, "create sweep sweep-a",
                store_->CreateSweep(sweep, jobs, "id", "x", kNoLimit));
  expect_nothing();
  Reopen();
  expect_nothing();

  g_syncs = 0;
  EXPECT_TRUE(store_->CreateSweep(sweep, jobs, "id", "x", kNoLimit)->is_new);
  // One transaction: of 1000 there would be as many.
  EXPECT_GT(g_syncs, 0);
  EXPECT_LT(g_syncs.exchange(0), 10);
  std::vector<v1::Job> ended = jobs;
  for (v1::Job& job : ended) job.set_state(v1::Job::CANCELLED);
  ASSERT_TRUE(store_->UpdateJobs(ended).ok());
  EXPECT_GT(g_syncs, 0);
  EXPECT_LT(g_syncs.exchange(0), 10);
  Reopen();
  EXPECT_EQ(store_->GetSweep("sweep-a")->jobs().cancelled(), 1000);
  g_syncs = 0;
  ASSERT_TRUE(store_->DeleteSweep("sweep-a").ok());
  EXPECT_GT(g_syncs, 0);
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
