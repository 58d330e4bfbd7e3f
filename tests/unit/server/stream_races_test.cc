// Watches of one job through all that they share, from several threads at once, for
// ThreadSanitizer. gRPC's place is taken by Call, since gRPC is not instrumented.
#include <grpcpp/support/server_callback.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/streams.h"
#include "tests/unit/server/at_once.h"
#include "tests/unit/server/store_dir.h"

namespace epo {
namespace {

using Reactor = grpc::ServerWriteReactor<v1::WatchJobResponse>;

// One call: does what gRPC does with a reactor, its reactions on `threads`.
class Call final : public grpc::ServerCallbackWriter<v1::WatchJobResponse> {
 public:
  explicit Call(WorkerPool& threads) : threads_(threads) {}

  void Run(Reactor* reactor) {
    reactor_ = reactor;
    {
      absl::MutexLock lock(&mutex_);
      ++reactions_;
    }
    BindReactor(reactor);
    // Only now, as gRPC does, it may be done.
    absl::MutexLock lock(&mutex_);
    --reactions_;
    React([] {});
  }

  // As when the client leaves: the write under way, and later ones, fail.
  void Cancel() {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    cancelled_ = true;
    React([this] { reactor_->OnCancel(); });
  }

  // What the call ended with; to be called once.
  grpc::Status Wait() {
    done_.WaitForNotification();
    absl::MutexLock lock(&mutex_);
    return status_;
  }

  // Sequence numbers in their order; 0 for `created`.
  std::vector<int64_t> sequences() const {
    absl::MutexLock lock(&mutex_);
    return sequences_;
  }

 private:
  void SendInitialMetadata() override {}

  void Write(const v1::WatchJobResponse* message, grpc::WriteOptions) override {
    absl::MutexLock lock(&mutex_);
    const bool ok = !cancelled_;
    if (ok && !message->has_heartbeat()) sequences_.push_back(message->sequence());
    React([this, ok] { reactor_->OnWriteDone(ok); });
  }

  void WriteAndFinish(const v1::WatchJobResponse*, grpc::WriteOptions, grpc::Status) override {
    FAIL();
  }

  void Finish(grpc::Status status) override {
    absl::MutexLock lock(&mutex_);
    status_ = std::move(status);
    finished_ = true;
    React([] {});
  }

  // The last reaction is followed by OnDone.
  void React(std::function<void()> reaction) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ++reactions_;
    threads_.Post([this, reaction = std::move(reaction)] {
      reaction();
      bool last = false;
      {
        absl::MutexLock lock(&mutex_);
        last = --reactions_ == 0 && finished_;
      }
      if (!last) return;
      reactor_->OnDone();
      done_.Notify();
    });
  }

  grpc::internal::ServerReactor* reactor() override { return reactor_; }
  void CallOnDone() override {}

  WorkerPool& threads_;
  Reactor* reactor_ = nullptr;
  absl::Notification done_;
  mutable absl::Mutex mutex_;
  int reactions_ ABSL_GUARDED_BY(mutex_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> sequences_ ABSL_GUARDED_BY(mutex_);
};

class StreamRaces : public StoreDirTest {
 protected:
  static constexpr int kSteps = 60;

  // The job from its first step to its end.
  void Publish() {
    StepRecord record;
    record.job.set_id("j1");
    record.job.set_state(v1::Job::RUNNING);
    for (int i = 0; i < kSteps; ++i) {
      record.step.set_index(i);
      record.iteration.set_index(i);
      record.job.set_completed_iterations(i + 1);
      if (i + 1 == kSteps) record.job.set_state(v1::Job::SUCCEEDED);
      ASSERT_TRUE(store_->AppendStep(record).ok());
      feeds_.Publish("j1", MakeStepUpdate(record.step));
      feeds_.NoteChange("j1");
      published_ = i + 1;
    }
    feeds_.Publish("j1", MakeEndedUpdate(record.job));
  }

  void Start(Call& call, StreamRegistry& registry) {
    v1::WatchJobRequest request;
    request.set_id("j1");
    call.Run(WatchJob({*store_, feeds_, pool_, registry, metrics_, [](v1::Job&) {}}, {}, request));
  }

  void WaitForStep(int count) {
    while (published_ < count) absl::SleepFor(absl::Milliseconds(1));
  }

  Metrics metrics_;
  StreamRegistry registry_;
  // Of the watches that a drain ends.
  StreamRegistry drained_;
  JobFeeds feeds_{pool_};
  WorkerPool pool_{2};
  WorkerPool grpc_{2};
  std::atomic<int> published_ = 0;
};

TEST_F(StreamRaces, WatchersComeAndGoWhileTheJobRuns) {
  feeds_.Open("j1", 0);
  Create("j1", v1::Job::RUNNING);
  const auto stay = [&] {
    while (published_ < kSteps) {
      Call call(grpc_);
      Start(call, registry_);
      const grpc::Status status = call.Wait();
      EXPECT_TRUE(status.ok()) << status.error_message();
      const std::vector<int64_t> sequences = call.sequences();
      ASSERT_EQ(sequences.size(), kSteps + 2u);
      for (int i = 0; i < kSteps + 2; ++i) EXPECT_EQ(sequences[i], i);
    }
  };
  const auto leave = [&] {
    while (published_ < kSteps) {
      Call call(grpc_);
      Start(call, registry_);
      WaitForStep(std::min(kSteps, published_ + 2));
      call.Cancel();
      const grpc::Status status = call.Wait();
      EXPECT_TRUE(status.ok() || status.error_code() == grpc::CANCELLED) << status.error_message();
    }
  };
  const auto are_drained = [&] {
    while (published_ < kSteps) {
      Call call(grpc_);
      Start(call, drained_);
      const grpc::Status status = call.Wait();
      EXPECT_TRUE(status.ok() || status.error_code() == grpc::UNAVAILABLE)
          << status.error_message();
    }
  };
  const auto drain = [&] {
    WaitForStep(kSteps / 2);
    drained_.Drain(grpc::Status(grpc::UNAVAILABLE, "the end"));
  };
  AtOnce({[&] { Publish(); }, stay, stay, leave, leave, are_drained, are_drained, drain});
}

}  // namespace
}  // namespace epo
