#include "server/watched_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

// The real store, except that while it is full it takes nothing.
class FullStore : public ForwardingStore {
 public:
  FullStore(std::unique_ptr<Store> real, std::filesystem::path dir, const std::atomic<bool>& full)
      : ForwardingStore(std::move(real)), dir_(std::move(dir)), full_(full) {}

  absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& request_id,
                                    const std::string& request, int max_waiting) override {
    if (full_) return Refusal("create job " + job.id());
    return ForwardingStore::CreateJob(job, request_id, request, max_waiting);
  }
  absl::Status PutVector(const StoredVector& vector, const std::string& client,
                         int max_vectors) override {
    return full_ ? Refusal("keep vector") : ForwardingStore::PutVector(vector, client, max_vectors);
  }
  absl::Status DeleteJob(const std::string& id) override {
    return full_ ? Refusal("delete job " + id) : ForwardingStore::DeleteJob(id);
  }
  absl::Status TryWrite() override {
    return full_ ? Refusal("try a write") : ForwardingStore::TryWrite();
  }

 private:
  absl::Status Refusal(const std::string& operation) const {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot ", operation, " in ", (dir_ / "epo.db").string(), ": database or disk is full"));
  }

  const std::filesystem::path dir_;
  const std::atomic<bool>& full_;
};

class WatchedStoreTest : public StoreDirTest {
 protected:
  void SetUp() override {
    StoreDirTest::SetUp();
    auto full = std::make_unique<FullStore>(std::move(store_), directory_, full_);
    auto watched =
        std::make_unique<WatchedStore>(std::move(full), directory_, absl::Milliseconds(10));
    watched_ = watched.get();
    store_ = std::move(watched);
    watched_->Tell([this](const absl::Status& status) {
      const absl::MutexLock lock(&mutex_);
      told_.push_back(status.ok());
    });
  }

  std::vector<bool> Told() {
    const absl::MutexLock lock(&mutex_);
    return told_;
  }
  void WaitUntilTold(size_t times) {
    const absl::Time end = absl::Now() + absl::Seconds(30);
    while (Told().size() < times && absl::Now() < end) absl::SleepFor(absl::Milliseconds(5));
    ASSERT_EQ(Told().size(), times);
  }

  std::atomic<bool> full_ = false;
  WatchedStore* watched_ = nullptr;

 private:
  absl::Mutex mutex_;
  std::vector<bool> told_;
};

TEST_F(WatchedStoreTest, ARefusedCallIsAnsweredToldAndForgotten) {
  Create("a", v1::Job::SUCCEEDED);
  full_ = true;
  v1::Job job;
  job.set_id("b");
  std::vector<absl::Status> answers = {store_->CreateJob(job, "", "", 10).status(),
                                       store_->PutVector({.name = "v"}, "", 10),
                                       store_->DeleteJob("a")};
  for (const absl::Status& answer : answers) {
    EXPECT_TRUE(absl::IsUnavailable(answer)) << answer;
    EXPECT_TRUE(absl::StrContains(answer.message(), "present: database or disk is full")) << answer;
    EXPECT_FALSE(absl::StrContains(answer.message(), "epo.db")) << answer;
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(info.ParseFromString(
        std::string(*answer.GetPayload("type.googleapis.com/google.rpc.ErrorInfo"))));
    EXPECT_EQ(info.reason(), "STORE_REFUSES_WRITES");
    EXPECT_TRUE(answer.GetPayload("type.googleapis.com/google.rpc.RetryInfo").has_value());
  }
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(Told(), std::vector<bool>({false}));
  full_ = false;
  WaitUntilTold(2);
  EXPECT_EQ(Told(), std::vector<bool>({false, true}));
  EXPECT_TRUE(store_->DeleteJob("a").ok());
}

TEST_F(WatchedStoreTest, WhatIsWrongWithARequestIsNoRefusal) {
  const absl::Status unknown = store_->DeleteJob("nope");
  EXPECT_TRUE(absl::IsNotFound(unknown)) << unknown;
  EXPECT_EQ(Told().size(), 0);
}

TEST_F(WatchedStoreTest, TakesWritesOnceBothJobsAndCallsGetTheirs) {
  const absl::Status refusal = absl::UnavailableError("database is locked");
  full_ = true;
  EXPECT_FALSE(store_->DeleteJob("a").ok());
  watched_->SetJobWrites(refusal);
  full_ = false;
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_EQ(Told(), std::vector<bool>({false}));
  watched_->SetJobWrites(absl::OkStatus());
  WaitUntilTold(2);
  // The other way round.
  watched_->SetJobWrites(refusal);
  full_ = true;
  EXPECT_FALSE(store_->DeleteJob("a").ok());
  watched_->SetJobWrites(absl::OkStatus());
  EXPECT_EQ(Told(), std::vector<bool>({false, true, false}));
  full_ = false;
  WaitUntilTold(4);
  EXPECT_EQ(Told(), std::vector<bool>({false, true, false, true}));
}

TEST_F(WatchedStoreTest, ATriedWriteReachesTheFile) {
  const auto log = directory_ / "epo.db-wal";
  const auto size = [&] { return std::filesystem::file_size(log); };
  Create("a", v1::Job::QUEUED);
  const uintmax_t before = size();
  ASSERT_TRUE(store_->TryWrite().ok());
  EXPECT_GT(size(), before);
}

}  // namespace
}  // namespace epo
