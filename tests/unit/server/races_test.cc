// Drives what several threads share from several threads at once, for ThreadSanitizer: each lock
// below stands between calls that nothing else orders.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/feed.h"
#include "server/stream_registry.h"
#include "tests/unit/server/at_once.h"
#include "tests/unit/server/scheduler_fixture.h"

namespace epo {
namespace {

class SchedulerRaces : public SchedulerTest {};

TEST_F(SchedulerRaces, TakesCallsFromManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kJobs = 3;
  constexpr int kCalls = 50;
  Start();
  OpenGate();
  std::atomic<int> cancelled = 0;
  std::atomic<int> unknown = 0;
  std::atomic<int> parked = 0;
  std::atomic<int> abandoned = 0;
  // Made before, so that between two submissions no store orders the threads.
  std::vector<std::vector<Scheduler::Submission>> submissions(kThreads);
  for (auto& of_thread : submissions) {
    for (int i = 0; i < kJobs; ++i) of_thread.push_back(Prepare(/*iterations=*/100'000));
  }
  std::vector<std::function<void()>> works;
  for (auto& of_thread : submissions) {
    works.emplace_back([&] {
      for (Scheduler::Submission& submission : of_thread) {
        v1::Job job = submission.job;
        scheduler_->Submit(std::move(submission));
        for (int i = 0; i < kCalls; ++i) {
          scheduler_->Cancel("nobody", [&](const auto& answer) {
            if (absl::IsNotFound(answer.status())) ++unknown;
          });
          scheduler_->Describe(job);
        }
        scheduler_->Pause(job.id(), [&](const auto& answer) { parked += answer.ok(); });
        scheduler_->Resume(job.id(), [&](const auto& answer) { parked += answer.ok(); });
      }
    });
    works.emplace_back([&] {
      for (int i = 0; i < kCalls; ++i) {
        scheduler_->ScorePrompts(
            {}, [] { return true; }, [&](const auto&) { ++abandoned; });
      }
    });
  }
  AtOnce(works);
  for (int i = 1; i <= kThreads * kJobs; ++i) {
    const absl::StatusOr<v1::Job> job = Cancel(absl::StrCat("j", i));
    cancelled += job.ok() && job->state() == v1::Job::CANCELLED;
  }
  scheduler_->Stop();
  EXPECT_EQ(cancelled, kThreads * kJobs);
  EXPECT_EQ(parked, 2 * kThreads * kJobs);
  EXPECT_EQ(unknown, kThreads * kJobs * kCalls);
  EXPECT_EQ(abandoned, kThreads * kCalls);
}

class CountingListener : public FeedListener {
 public:
  void Wake() override { ++wakes; }
  std::atomic<int> wakes = 0;
};

TEST(FeedRaces, PublishesWhileWatchersComeAndGo) {
  constexpr int kSteps = 2000;
  WorkerPool pool(2);
  JobFeeds feeds(pool, {.tail_updates = 8});
  feeds.Open("shared", 0);
  const std::shared_ptr<Feed> shared = feeds.Find("shared");
  const auto stays = std::make_shared<CountingListener>();
  shared->Subscribe(stays);
  const auto publish = [&] {
    for (int i = 0; i < kSteps; ++i) {
      v1::Step step;
      step.set_index(i);
      feeds.Publish("shared", MakeStepUpdate(std::move(step)));
      feeds.NoteChange("shared");
    }
    v1::Job job;
    job.set_completed_iterations(kSteps);
    feeds.Publish("shared", MakeEndedUpdate(std::move(job)));
  };
  // Other jobs come and go.
  const auto others = [&](const std::string& name) {
    return [&feeds, name] {
      for (int i = 0; i < kSteps; ++i) {
        const std::string id = absl::StrCat(name, i);
        feeds.Open(id, 0);
        EXPECT_NE(feeds.Find(id), nullptr);
        feeds.Close(id);
      }
    };
  };
  const auto find = [&] {
    while (feeds.Find("shared") != nullptr) {
    }
  };
  const auto come_and_go = [&] {
    while (feeds.Find("shared") != nullptr) {
      const auto listener = std::make_shared<CountingListener>();
      shared->Subscribe(listener);
      shared->Unsubscribe(listener.get());
    }
  };
  const auto watch = [&] {
    int64_t next = 1;
    while (true) {
      const Feed::Slice slice = shared->Read(next, 4);
      if (slice.kind == Feed::Slice::Kind::kEnded) break;
      // As if it had read the missing ones from the store.
      if (slice.kind == Feed::Slice::Kind::kBehind) next = shared->published();
      for (const Update& update : slice.updates) ASSERT_EQ(update->sequence(), next++);
    }
    EXPECT_EQ(next, kSteps + 1);
  };
  AtOnce({publish, others("a"), others("b"), find, come_and_go, watch, watch});
  EXPECT_EQ(shared->published(), kSteps);
  EXPECT_EQ(shared->changes(), kSteps);
  while (stays->wakes < 2 * kSteps + 1) absl::SleepFor(absl::Milliseconds(2));
}

class CountingStream : public Stream {
 public:
  void Drain(const grpc::Status& status) override { drained = status.error_code(); }
  void Tick(absl::Time) override { ticked = true; }

  std::atomic<int> drained = 0;
  std::atomic<bool> ticked = false;
};

TEST(RegistryRaces, DrainsWhileStreamsComeAndGo) {
  constexpr int kStreams = 2000;
  StreamRegistry registry;
  const auto stays = std::make_shared<CountingStream>();
  registry.Add(stays);
  const auto come_and_go = [&] {
    for (int i = 0; i < kStreams || !stays->ticked; ++i) {
      const auto stream = std::make_shared<CountingStream>();
      registry.Add(stream);
      registry.Remove(stream.get());
    }
  };
  std::vector<std::shared_ptr<CountingStream>> open(kStreams);
  const auto come = [&] {
    for (auto& stream : open) registry.Add(stream = std::make_shared<CountingStream>());
  };
  const auto drain = [&] { registry.Drain(grpc::Status(grpc::UNAVAILABLE, "the end")); };
  AtOnce({come_and_go, come_and_go, come, drain});
  // Those that were there and those that came later.
  EXPECT_EQ(stays->drained, grpc::UNAVAILABLE);
  for (const auto& stream : open) {
    EXPECT_EQ(stream->drained, grpc::UNAVAILABLE);
    registry.Remove(stream.get());
  }
  registry.Remove(stays.get());
  registry.WaitUntilEmpty(absl::InfiniteFuture());
}

}  // namespace
}  // namespace epo
