// Writes to a store and reads it from several threads at once, for ThreadSanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/at_once.h"
#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

// Threads that begin with a new store share its connections and statements at once.
class StoreRaces : public StoreDirTest {};

TEST_F(StoreRaces, WritesAndReadsAtOnce) {
  constexpr int kJobs = 3;
  constexpr int kSteps = 10;
  const auto write = [this](const std::string& name) {
    for (int i = 0; i < kJobs; ++i) {
      StepRecord record;
      record.job.set_id(absl::StrCat(name, i));
      record.job.set_state(v1::Job::QUEUED);
      ASSERT_TRUE(store_->CreateJob(record.job, "", "", 1000).ok());
      record.job.set_state(v1::Job::RUNNING);
      for (int step = 0; step < kSteps; ++step) {
        ASSERT_TRUE(store_->NoteRound({record.job.id()}, {record.job}).ok());
        record.step.set_index(step);
        record.iteration.set_index(step);
        const absl::Status status = store_->AppendStep(record);
        ASSERT_TRUE(status.ok()) << status;
      }
      ASSERT_TRUE(store_->UpdateJob(record.job).ok());
      if (i > 0) {
        ASSERT_TRUE(store_->DeleteJob(record.job.id()).ok());
      }
    }
  };
  std::atomic<int> writing = 2;
  const auto read = [&] {
    while (writing > 0) {
      ASSERT_TRUE(store_->ListJobs({}).ok());
      ASSERT_TRUE(store_->CountJobs().ok());
      ASSERT_TRUE(store_->NotedRound().ok());
      ASSERT_TRUE(store_->UsedBytes().ok());
      const absl::Status status = store_->GetSteps("a0", 0, 100).status();
      ASSERT_TRUE(status.ok() || absl::IsNotFound(status)) << status;
    }
  };
  const auto writer = [&](const std::string& name) {
    return [&, name] {
      write(name);
      --writing;
    };
  };
  AtOnce({writer("a"), writer("b"), read, read, read});
  for (const char* id : {"a0", "b0"}) EXPECT_EQ(store_->GetSteps(id, 0, 100)->size(), kSteps);
  EXPECT_EQ(store_->ListJobs({})->jobs.size(), 2);
}

}  // namespace
}  // namespace epo
