#include "server/metrics.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "server/metered_store.h"
#include "server/status.h"

namespace epo {
namespace {

// Whether `metrics` has the line, ends included.
testing::AssertionResult Has(const Metrics& metrics, const std::string& line) {
  const std::string text = metrics.Text();
  if (absl::StrContains(text, absl::StrCat("\n", line, "\n"))) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "no line \"" << line << "\" in\n" << text;
}

v1::Job FailedJob(const absl::Status& error) {
  v1::Job job;
  job.set_state(v1::Job::FAILED);
  *job.mutable_error() = ToRpcStatus(error);
  return job;
}

TEST(Metrics, AFailedJobCountsUnderItsReason) {
  Metrics metrics;
  metrics.JobEnded(FailedJob(absl::ResourceExhaustedError("the device is full")));
  metrics.JobEnded(
      FailedJob(MakeError(absl::StatusCode::kFailedPrecondition, "", "MAX_ATTEMPTS_REACHED")));
  metrics.JobEnded(FailedJob(absl::DeadlineExceededError("")));
  EXPECT_TRUE(
      Has(metrics, R"(epo_jobs_ended_total{reason="resource_exhausted",state="failed"} 1)"));
  EXPECT_TRUE(
      Has(metrics, R"(epo_jobs_ended_total{reason="max_attempts_reached",state="failed"} 1)"));
  EXPECT_TRUE(Has(metrics, R"(epo_jobs_ended_total{reason="deadline_exceeded",state="failed"} 1)"));
}

TEST(Metrics, AClockThatWasSetBackTakesNothingFromASum) {
  Metrics metrics;
  v1::Job job;
  job.mutable_create_time()->set_seconds(100);
  job.mutable_end_time()->set_seconds(50);
  job.set_state(v1::Job::SUCCEEDED);
  metrics.JobEnded(job);
  EXPECT_TRUE(Has(metrics, "epo_job_duration_seconds_sum 0"));
  EXPECT_TRUE(Has(metrics, "epo_job_duration_seconds_count 1"));
}

TEST(Metrics, CallsOfOtherServicesCountAsOne) {
  Metrics metrics;
  const auto health = metrics.RpcStarted("/grpc.health.v1.Health/Check");
  EXPECT_TRUE(Has(metrics, R"(epo_rpcs_in_flight{method="other"} 1)"));
  metrics.RpcEnded(health, 0, 1.0);
  EXPECT_TRUE(Has(metrics, R"(epo_rpcs_in_flight{method="other"} 0)"));
  const auto unknown = metrics.RpcStarted("/epo.v1.EpoService/Explode");
  metrics.RpcEnded(unknown, 12, 1.0);
  EXPECT_TRUE(Has(metrics, R"(epo_rpcs_total{code="UNIMPLEMENTED",method="other"} 1)"));
  // A code that gRPC does not define.
  metrics.RpcEnded(metrics.RpcStarted("/epo.v1.EpoService/GetJob"), 99, 1.0);
  EXPECT_TRUE(Has(metrics, R"(epo_rpcs_total{code="UNKNOWN",method="GetJob"} 1)"));
}

TEST(Metrics, ASourceThatKnowsNothingIsAbsent) {
  Metrics metrics;
  metrics.AddSource([] {
    return std::vector<Sample>{{"epo_none", "nothing"},
                               {"epo_some", "one\nline", Sample::Kind::kGauge, {{{}, 2}}}};
  });
  EXPECT_FALSE(absl::StrContains(metrics.Text(), "epo_none"));
  EXPECT_TRUE(Has(metrics, "epo_some 2"));
}

TEST(Metrics, EvaluatorCountersAddUp) {
  Metrics metrics;
  EvaluatorCounters first;
  first.candidates = 3;
  first.rows = 5;
  first.layer_seconds = 0.5;
  metrics.Evaluated({}, first);
  EvaluatorCounters second = first;
  second.candidates = 10;
  second.layer_seconds = 2;
  metrics.Evaluated(first, second);
  EXPECT_TRUE(Has(metrics, "epo_candidates_scored_total 10"));
  EXPECT_TRUE(Has(metrics, "epo_candidate_rows_computed_total 5"));
  EXPECT_TRUE(Has(metrics, R"(epo_evaluate_seconds_total{phase="layers"} 2)"));
}

TEST(Metrics, ARoundIsInFlightUntilItEnds) {
  Metrics metrics;
  {
    const MeteredRound round(&metrics, 3, 100);
    EXPECT_TRUE(Has(metrics, "epo_rounds_in_flight 1"));
  }
  EXPECT_TRUE(Has(metrics, "epo_rounds_in_flight 0"));
  EXPECT_TRUE(Has(metrics, "epo_round_jobs_sum 3"));
  EXPECT_TRUE(Has(metrics, "epo_round_rows_sum 100"));
  EXPECT_TRUE(Has(metrics, "epo_round_duration_seconds_count 1"));
}

// A store whose writes end as they are told to.
class TellingStore : public Store {
 public:
  explicit TellingStore(const absl::Status& answer) : answer_(answer) {}
  absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& /*request_id*/,
                                    const std::string& /*request*/, int /*max_waiting*/) override {
    if (!answer_.ok()) return answer_;
    return Created{job, false};
  }
  absl::StatusOr<CreatedSweep> CreateSweep(const v1::Sweep& sweep,
                                           const std::vector<v1::Job>& /*jobs*/,
                                           const std::string& request_id,
                                           const std::string& /*request*/,
                                           int /*max_waiting*/) override {
    if (!answer_.ok()) return answer_;
    return CreatedSweep{sweep, request_id.empty()};
  }
  absl::Status UpdateJob(const v1::Job& /*job*/) override { return answer_; }
  absl::Status UpdateJobs(const std::vector<v1::Job>& /*jobs*/) override { return answer_; }
  absl::Status NoteRound(const std::vector<std::string>& /*ids*/,
                         const std::vector<v1::Job>& /*begun*/) override {
    return answer_;
  }
  absl::Status TryWrite() override { return answer_; }
  absl::Status AppendStep(const StepRecord& /*record*/) override { return answer_; }
  absl::Status DeleteJob(const std::string& /*id*/) override { return answer_; }
  absl::Status DeleteSweep(const std::string& /*id*/) override { return answer_; }
  absl::StatusOr<v1::Job> GetJob(const std::string& /*id*/) const override { return v1::Job(); }
  absl::StatusOr<v1::Sweep> GetSweep(const std::string& /*id*/) const override {
    return v1::Sweep();
  }
  absl::StatusOr<SweepPage> ListSweeps(const ListQuery& /*query*/) const override {
    return SweepPage();
  }
  absl::StatusOr<std::vector<v1::Job>> SweepJobs(const std::string& /*id*/, int /*first*/,
                                                 int /*limit*/) const override {
    return std::vector<v1::Job>();
  }
  absl::StatusOr<JobPage> ListJobs(const ListQuery& /*query*/) const override { return JobPage(); }
  absl::StatusOr<std::vector<v1::Job>> UnfinishedJobs() const override {
    return std::vector<v1::Job>();
  }
  absl::StatusOr<std::vector<std::string>> NotedRound() const override {
    return std::vector<std::string>();
  }
  absl::StatusOr<std::map<v1::Job::State, int64_t>> CountJobs() const override {
    return std::map<v1::Job::State, int64_t>();
  }
  absl::StatusOr<std::optional<v1::Job>> FindRepeat(const std::string& /*client*/,
                                                    const std::string& /*request_id*/,
                                                    const std::string& /*request*/) const override {
    return std::nullopt;
  }
  absl::StatusOr<std::optional<v1::Sweep>> FindSweepRepeat(
      const std::string& /*client*/, const std::string& /*request_id*/,
      const std::string& /*request*/) const override {
    return std::nullopt;
  }
  absl::StatusOr<int64_t> UsedBytes() const override { return 0; }
  absl::StatusOr<std::string> GetCheckpoint(const std::string& /*id*/) const override { return ""; }
  absl::StatusOr<std::vector<v1::Step>> GetSteps(const std::string& /*id*/, int /*first*/,
                                                 int /*limit*/) const override {
    return std::vector<v1::Step>();
  }
  absl::StatusOr<std::vector<v1::Iteration>> GetIterations(const std::string& /*id*/, int /*first*/,
                                                           int /*limit*/) const override {
    return std::vector<v1::Iteration>();
  }
  absl::Status PutVector(const StoredVector& /*vector*/, const std::string& /*client*/,
                         int /*max_vectors*/) override {
    return answer_;
  }
  absl::StatusOr<StoredVector> GetVectorRow(const std::string& /*name*/,
                                            int /*row*/) const override {
    return answer_;
  }

 private:
  const absl::Status& answer_;
};

TEST(MeteredStore, TellsRefusalsFromRequestsThatCannotBeFulfilled) {
  Metrics metrics;
  absl::Status answer;
  const auto store = MeterStore(std::make_unique<TellingStore>(answer), metrics);
  v1::Job ended;
  ended.set_state(v1::Job::SUCCEEDED);
  answer = absl::ResourceExhaustedError("disk full");
  EXPECT_FALSE(store->UpdateJob(ended).ok());
  EXPECT_TRUE(Has(metrics, "epo_store_refusing_writes 1"));
  EXPECT_TRUE(Has(metrics, R"(epo_store_refused_writes_total{kind="update"} 1)"));
  EXPECT_TRUE(Has(metrics, R"(epo_jobs_ended_total{reason="done",state="succeeded"} 0)"));

  answer = absl::NotFoundError("no such job");
  EXPECT_FALSE(store->DeleteJob("x").ok());
  EXPECT_TRUE(Has(metrics, R"(epo_store_refused_writes_total{kind="delete"} 0)"));

  answer = absl::OkStatus();
  EXPECT_TRUE(store->UpdateJob(ended).ok());
  EXPECT_TRUE(Has(metrics, "epo_store_refusing_writes 0"));
  EXPECT_TRUE(Has(metrics, R"(epo_jobs_ended_total{reason="done",state="succeeded"} 1)"));
  // The repeat of a request makes no job.
  EXPECT_TRUE(store->CreateJob(ended, "", "", 1).ok());
  EXPECT_TRUE(Has(metrics, "epo_jobs_created_total 0"));
}

TEST(MeteredStore, CountsTheJobsOfASweepOneByOne) {
  Metrics metrics;
  const absl::Status answer;
  const auto store = MeterStore(std::make_unique<TellingStore>(answer), metrics);
  std::vector<v1::Job> jobs(3);
  EXPECT_TRUE(store->CreateSweep({}, jobs, "a repeat", "", 9).ok());
  EXPECT_TRUE(Has(metrics, "epo_jobs_created_total 0"));
  EXPECT_TRUE(store->CreateSweep({}, jobs, "", "", 9).ok());
  EXPECT_TRUE(Has(metrics, "epo_jobs_created_total 3"));
  jobs[0].set_state(v1::Job::CANCELLED);
  jobs[2].set_state(v1::Job::CANCELLED);
  EXPECT_TRUE(store->UpdateJobs(jobs).ok());
  EXPECT_TRUE(Has(metrics, R"(epo_jobs_ended_total{reason="cancelled",state="cancelled"} 2)"));
}

}  // namespace
}  // namespace epo
