// A scheduler over phi-tiny and a real store, with an evaluator and a store that fail on demand.
#ifndef EPO_TESTS_UNIT_SERVER_SCHEDULER_FIXTURE_H_
#define EPO_TESTS_UNIT_SERVER_SCHEDULER_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "core/evaluate/target.h"
#include "core/model/model.h"
#include "server/forwarding_store.h"
#include "server/job_state.h"
#include "server/recover.h"
#include "server/scheduler.h"

namespace epo {

inline constexpr int kLayer = 2;
// More than any test lets wait.
inline constexpr int kMaxQueued = 100'000;
// Rounds with this neuron fail, when a test says so.
inline constexpr int kPoison = 7;

enum class Fault { kNone, kStatus, kThrow, kHang };

// The real evaluator, except that it fails for one objective, or hangs until it is released.
class FaultyEvaluator : public Evaluator {
 public:
  FaultyEvaluator(std::unique_ptr<Evaluator> real, Fault fault, const absl::Notification& release)
      : real_(std::move(real)), fault_(fault), release_(release) {}

  absl::StatusOr<std::vector<std::shared_ptr<const Prepared>>> Prepare(
      std::span<const PrepareRequest> requests) override {
    for (const PrepareRequest& request : requests) {
      const Term& term = request.target->objective().terms[0];
      if (std::get<NeuronTerm>(term.kind).neuron != kPoison || fault_ == Fault::kNone) continue;
      if (fault_ == Fault::kHang) {
        release_.WaitForNotification();
        continue;
      }
      if (fault_ == Fault::kThrow) throw std::runtime_error("the device threw");
      return absl::ResourceExhaustedError("the device is full");
    }
    return real_->Prepare(requests);
  }
  absl::StatusOr<std::vector<TokenId>> Substitutes(
      std::span<const SubstituteQuery> queries) override {
    return real_->Substitutes(queries);
  }
  absl::StatusOr<std::vector<Score>> ScoreCandidates(
      std::span<const Candidate> candidates) override {
    return real_->ScoreCandidates(candidates);
  }
  void LimitRows(int max_rows) override { real_->LimitRows(max_rows); }
  const EvaluatorCounters& counters() const override { return real_->counters(); }

 private:
  const std::unique_ptr<Evaluator> real_;
  const Fault fault_;
  const absl::Notification& release_;
};

// The real store, except that it refuses writes, or notes of rounds alone, while told so; keeps the
// order of the steps and of the rounds.
class FaultyStore : public ForwardingStore {
 public:
  explicit FaultyStore(std::unique_ptr<Store> real) : ForwardingStore(std::move(real)) {}

  std::atomic<bool> full = false;
  std::atomic<bool> refuses_rounds = false;
  std::atomic<int> refused = 0;
  // Writes of several jobs' rows at once.
  std::atomic<int> updates = 0;
  // Called once a round is noted, before its writer is told. Set before the store is shared.
  std::function<void()> after_note;

  std::vector<std::pair<std::string, int>> appended() const {
    absl::MutexLock lock(&mutex_);
    return appended_;
  }

  std::vector<std::vector<std::string>> rounds() const {
    absl::MutexLock lock(&mutex_);
    return rounds_;
  }

  absl::Status UpdateJob(const v1::Job& job) override {
    if (full) return Refuse();
    return ForwardingStore::UpdateJob(job);
  }
  absl::Status UpdateJobs(const std::vector<v1::Job>& jobs) override {
    if (full) return Refuse();
    ++updates;
    return ForwardingStore::UpdateJobs(jobs);
  }
  absl::Status NoteRound(const std::vector<std::string>& ids,
                         const std::vector<v1::Job>& begun) override {
    if (full || (refuses_rounds && !ids.empty())) return Refuse();
    absl::Status status = ForwardingStore::NoteRound(ids, begun);
    if (after_note && !ids.empty()) after_note();
    absl::MutexLock lock(&mutex_);
    if (status.ok()) rounds_.push_back(ids);
    return status;
  }
  absl::Status AppendStep(const StepRecord& record) override {
    if (full) return Refuse();
    absl::Status status = ForwardingStore::AppendStep(record);
    absl::MutexLock lock(&mutex_);
    if (status.ok()) appended_.emplace_back(record.job.id(), record.step.index());
    return status;
  }

 private:
  absl::Status Refuse() {
    ++refused;
    return absl::ResourceExhaustedError("disk full");
  }

  mutable absl::Mutex mutex_;
  std::vector<std::pair<std::string, int>> appended_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<std::string>> rounds_ ABSL_GUARDED_BY(mutex_);
};

class SchedulerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float64"});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }

  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() /
                 absl::StrCat("epo-scheduler-test-", getpid(), "-",
                              testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    auto store = Store::Open(directory_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::make_unique<FaultyStore>(*std::move(store));
    options_.store_retry = absl::Milliseconds(20);
  }

  void TearDown() override {
    if (!gate_.HasBeenNotified()) gate_.Notify();
    if (!release_.HasBeenNotified()) release_.Notify();
    scheduler_.reset();
    store_.reset();
    std::filesystem::remove_all(directory_);
  }

  // The model's thread stands still until OpenGate().
  void Start(Fault fault = Fault::kNone) {
    scheduler_ = MakeScheduler(
        converter_, *store_, feeds_,
        [this, fault]() -> std::unique_ptr<Evaluator> {
          gate_.WaitForNotification();
          return std::make_unique<FaultyEvaluator>(Evaluator::Create(*model_, {}), fault, release_);
        },
        options_);
  }
  void OpenGate() { gate_.Notify(); }

  static v1::JobSpec Spec(int iterations, int neuron, int population) {
    v1::JobSpec spec;
    spec.mutable_objective()->mutable_neuron()->set_layer(kLayer);
    spec.mutable_objective()->mutable_neuron()->set_neuron(neuron);
    spec.set_tokens(4);
    spec.set_population(population);
    spec.set_children_per_parent(4);
    spec.set_top_k(16);
    spec.set_iterations(iterations);
    return spec;
  }

  // A job that is in the store and has a feed.
  Scheduler::Submission Prepare(int iterations, int neuron = 1, int population = 2) {
    FieldViolations violations;
    const v1::JobSpec wire = Spec(iterations, neuron, population);
    SearchSpec spec = converter_.ParseSpec(wire, "spec", violations);
    EXPECT_TRUE(violations.empty());
    v1::Job job;
    job.set_id(absl::StrCat("j", ++jobs_));
    *job.mutable_spec() = Converter::EffectiveSpec(wire, spec);
    job.set_state(v1::Job::QUEUED);
    job.set_model_fingerprint(model_->fingerprint());
    feeds_.Open(job.id(), 0);
    EXPECT_TRUE(store_->CreateJob(job, "", "", kMaxQueued).ok());
    return {.job = std::move(job), .spec = std::move(spec)};
  }

  v1::Job Create(int iterations, int neuron = 1, int population = 2) {
    Scheduler::Submission submission = Prepare(iterations, neuron, population);
    v1::Job job = submission.job;
    scheduler_->Submit(std::move(submission));
    return job;
  }

  // A job as a process that ended somehow left it in the store.
  std::string Leave(v1::Job::State state, int crashes = 0, int iterations = 5) {
    v1::Job job;
    job.set_id(absl::StrCat("j", ++jobs_));
    *job.mutable_spec() = Spec(iterations, 1, 2);
    job.set_state(state);
    job.set_crashes(crashes);
    job.set_model_fingerprint(model_->fingerprint());
    EXPECT_TRUE(store_->CreateJob(job, "", "", kMaxQueued).ok());
    return job.id();
  }

  absl::StatusOr<int> Recover(int max_attempts = 3) {
    return RecoverJobs(converter_, *store_, feeds_, *scheduler_, max_attempts);
  }

  v1::Job Get(const std::string& id) { return *store_->GetJob(id); }

  v1::Job WaitForEnd(const std::string& id) {
    // A feed is closed once the end is persisted and published.
    while (feeds_.Find(id) != nullptr) absl::SleepFor(absl::Milliseconds(2));
    return Get(id);
  }

  void WaitForSteps(const std::string& id, int count) {
    for (v1::Job job = Get(id); job.completed_iterations() < count; job = Get(id)) {
      ASSERT_FALSE(IsTerminal(job.state())) << job.ShortDebugString();
      absl::SleepFor(absl::Milliseconds(2));
    }
  }

  using Ask = void (Scheduler::*)(const std::string&, Scheduler::JobDone);
  absl::StatusOr<v1::Job> Do(Ask ask, const std::string& id) {
    absl::Notification answered;
    absl::StatusOr<v1::Job> answer;
    ((*scheduler_).*ask)(id, [&](absl::StatusOr<v1::Job> job) {
      answer = std::move(job);
      answered.Notify();
    });
    answered.WaitForNotification();
    return answer;
  }
  absl::StatusOr<v1::Job> Cancel(const std::string& id) { return Do(&Scheduler::Cancel, id); }

  static inline const Model* model_ = nullptr;
  std::filesystem::path directory_;
  SchedulerOptions options_;
  absl::Notification gate_;
  absl::Notification release_;
  Converter converter_{*model_};
  std::unique_ptr<FaultyStore> store_;
  JobFeeds feeds_{pool_};
  WorkerPool pool_{1};
  std::unique_ptr<Scheduler> scheduler_;
  int jobs_ = 0;
};

}  // namespace epo

#endif  // EPO_TESTS_UNIT_SERVER_SCHEDULER_FIXTURE_H_
