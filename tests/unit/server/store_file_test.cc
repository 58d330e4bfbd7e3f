// The directory and the file of a store: whose they are, older and newer ones, damaged ones.
#include <unistd.h>

#include <fstream>

#include "server/store_compress.h"
#include "tests/unit/server/store_fixture.h"

namespace epo {
namespace {

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

TEST_F(StoreTest, GivesTheDiskBackWhatADeletedJobTook) {
  Open();
  Create(MakeJob("a"));
  Create(MakeJob("b"));
  // Their pages lie between each other's.
  for (int i = 0; i < 300; ++i) {
    Append("a", i, i + 1);
    Append("b", i, i + 1);
  }
  store_.reset();
  const auto before = std::filesystem::file_size(file());
  ASSERT_GT(before, 1 << 20);
  Open();
  ASSERT_TRUE(store_->DeleteJob("a").ok());
  store_.reset();
  EXPECT_EQ(SqlInt("PRAGMA freelist_count"), 0);
  EXPECT_LT(std::filesystem::file_size(file()), before * 6 / 10);
  Open();
  ExpectSteps("b", 300);
}

TEST_F(StoreTest, KeepsAnOlderFilesFreePagesForNewJobs) {
  Open();
  store_.reset();
  Sql("PRAGMA auto_vacuum = NONE; VACUUM");
  Open();
  Create(MakeJob("a"));
  Append("a", 0, 20);
  ASSERT_TRUE(store_->DeleteJob("a").ok());
  store_.reset();
  EXPECT_GT(SqlInt("PRAGMA freelist_count"), 0);
  // What docs/operations.md says to do.
  Sql("PRAGMA auto_vacuum = INCREMENTAL; VACUUM");
  Open();
  Create(MakeJob("a"));
  Append("a", 0, 20);
  ASSERT_TRUE(store_->DeleteJob("a").ok());
  store_.reset();
  EXPECT_EQ(SqlInt("PRAGMA freelist_count"), 0);
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

}  // namespace
}  // namespace epo
