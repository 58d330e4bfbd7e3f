#include "server/retention.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

class RetentionTest : public StoreDirTest {
 protected:
  std::vector<std::string> Left() {
    const JobPage page = store_->ListJobs({.page_size = 1000}).value();
    std::vector<std::string> ids;
    for (const v1::Job& job : page.jobs) ids.push_back(job.id());
    return ids;
  }
};

TEST_F(RetentionTest, DeletesWhatEndedBefore) {
  Create("succeeded", v1::Job::SUCCEEDED, 999);
  Create("failed", v1::Job::FAILED, 500);
  Create("cancelled", v1::Job::CANCELLED, 1);
  Create("later", v1::Job::SUCCEEDED, 1000);
  for (const auto state : {v1::Job::QUEUED, v1::Job::RUNNING, v1::Job::PAUSED}) {
    Create(absl::StrCat("live", state), state);
  }
  EXPECT_EQ(DeleteEndedBefore(*store_, absl::FromUnixSeconds(1000)).value(), 3);
  EXPECT_EQ(Left(), (std::vector<std::string>{"live6", "live2", "live1", "later"}));
  EXPECT_EQ(DeleteEndedBefore(*store_, absl::FromUnixSeconds(1000)).value(), 0);
}

TEST_F(RetentionTest, GoesThroughAllPages) {
  for (int i = 0; i < 1100; ++i) {
    Create(absl::StrCat("j", i), v1::Job::SUCCEEDED, i < 20 ? 1 : 2000);
  }
  EXPECT_EQ(DeleteEndedBefore(*store_, absl::FromUnixSeconds(1000)).value(), 20);
}

TEST_F(RetentionTest, ASweepGoesWholeOrNotAtAll) {
  // Of each sweep, when its jobs ended; 0: one has not.
  const auto create = [this](const std::string& id, const std::vector<int64_t>& ends) {
    v1::Sweep sweep;
    sweep.set_id(id);
    sweep.set_objective_count(1);
    sweep.set_seed_count(static_cast<int>(ends.size()));
    std::vector<v1::Job> jobs;
    for (const int64_t end : ends) {
      v1::Job& job = jobs.emplace_back();
      job.set_id(absl::StrCat(id, jobs.size()));
      job.set_sweep(id);
      job.set_state(end == 0 ? v1::Job::PAUSED : v1::Job::SUCCEEDED);
      if (end > 0) job.mutable_end_time()->set_seconds(end);
    }
    ASSERT_TRUE(store_->CreateSweep(sweep, jobs, "", "", 1000).ok());
  };
  create("sweep-old", {1, 999});
  create("sweep-new", {1, 1000, 2});
  create("sweep-live", {1, 0});
  Create("old", v1::Job::SUCCEEDED, 1);
  EXPECT_EQ(DeleteEndedBefore(*store_, absl::FromUnixSeconds(1000)).value(), 3);
  EXPECT_EQ(Left(), (std::vector<std::string>{"sweep-live2", "sweep-live1", "sweep-new3",
                                              "sweep-new2", "sweep-new1"}));
  EXPECT_EQ(store_->ListSweeps({})->sweeps.size(), 2);
}

TEST_F(RetentionTest, TheSweeperComesByItself) {
  Create("old", v1::Job::SUCCEEDED, absl::ToUnixSeconds(absl::Now()) - 7200);
  Create("new", v1::Job::SUCCEEDED, absl::ToUnixSeconds(absl::Now()) - 600);
  RetentionSweeper sweeper(*store_, absl::Hours(1));
  while (store_->GetJob("old").ok()) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_TRUE(store_->GetJob("new").ok());
}

}  // namespace
}  // namespace epo
