// A store over a real SQLite file in a temporary directory, and what tests put into it.
#ifndef EPO_TESTS_UNIT_SERVER_STORE_FIXTURE_H_
#define EPO_TESTS_UNIT_SERVER_STORE_FIXTURE_H_

#include <SQLiteCpp/Database.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/store.h"

namespace epo {

// Waiting jobs of a client.
inline constexpr int kNoLimit = std::numeric_limits<int>::max();

#define EXPECT_STATUS(expected_code, expected_text, expression)                \
  do {                                                                         \
    const absl::Status actual = StatusOf(expression);                          \
    EXPECT_EQ(actual.code(), absl::StatusCode::expected_code) << actual;       \
    EXPECT_TRUE(absl::StrContains(actual.message(), expected_text)) << actual; \
  } while (false)

inline absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

inline v1::Job MakeJob(const std::string& id, v1::Job::State state = v1::Job::QUEUED) {
  v1::Job job;
  job.set_id(id);
  job.set_state(state);
  job.mutable_create_time()->set_seconds(1'700'000'000);
  job.mutable_spec()->set_tokens(12);
  return job;
}

inline StepRecord MakeStep(const std::string& id, int index) {
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

inline v1::Sweep MakeSweep(const std::string& id, int objectives, int seeds,
                           const std::string& client = "") {
  v1::Sweep sweep;
  sweep.set_id(id);
  sweep.set_client(client);
  v1::JobSpec& job = *sweep.mutable_spec()->mutable_job();
  job.set_tokens(3);
  job.set_iterations(10);
  job.add_initial_prompts()->mutable_ids()->add_ids(7);
  sweep.set_objective_count(objectives);
  sweep.set_seed_count(seeds);
  sweep.set_total_iterations(INT64_C(10) * objectives * seeds);
  sweep.mutable_create_time()->set_seconds(1'700'000'000);
  return sweep;
}

inline std::vector<v1::Job> MakeSweepJobs(const v1::Sweep& sweep) {
  std::vector<v1::Job> jobs;
  for (int i = 0; i < sweep.objective_count() * sweep.seed_count(); ++i) {
    v1::Job job = MakeJob(absl::StrCat(sweep.id(), "-j", i));
    job.set_client(sweep.client());
    *job.mutable_spec() = sweep.spec().job();
    job.mutable_spec()->mutable_objective()->mutable_neuron()->set_neuron(i / sweep.seed_count());
    job.mutable_spec()->set_seed(i % sweep.seed_count());
    job.set_sweep(sweep.id());
    job.set_sweep_index(i);
    jobs.push_back(std::move(job));
  }
  return jobs;
}

template <typename Message>
void ExpectSame(const Message& actual, const Message& expected) {
  EXPECT_EQ(actual.SerializeAsString(), expected.SerializeAsString());
}

inline std::vector<std::string> Ids(const std::vector<v1::Job>& jobs) {
  std::vector<std::string> ids;
  ids.reserve(jobs.size());
  for (const v1::Job& job : jobs) ids.push_back(job.id());
  return ids;
}

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(testing::TempDir(), "store_test.XXXXXX");
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override {
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

}  // namespace epo

#endif  // EPO_TESTS_UNIT_SERVER_STORE_FIXTURE_H_
