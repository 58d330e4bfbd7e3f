// A store in a directory that lasts as long as the test.
#ifndef EPO_TESTS_UNIT_SERVER_STORE_DIR_H_
#define EPO_TESTS_UNIT_SERVER_STORE_DIR_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/store.h"

namespace epo {

class StoreDirTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() /
                 absl::StrCat("epo-store-dir-", getpid(), "-",
                              testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    auto store = Store::Open(directory_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }

  // `bytes`: of its request.
  void Create(const std::string& id, v1::Job::State state, int64_t end_seconds = 0,
              size_t bytes = 0) {
    v1::Job job;
    job.set_id(id);
    job.set_state(state);
    if (end_seconds > 0) job.mutable_end_time()->set_seconds(end_seconds);
    const auto created = store_->CreateJob(job, "request-" + id, std::string(bytes, 'x'), 1000);
    ASSERT_TRUE(created.ok()) << created.status();
  }

  std::filesystem::path directory_;
  std::unique_ptr<Store> store_;
};

}  // namespace epo

#endif  // EPO_TESTS_UNIT_SERVER_STORE_DIR_H_
