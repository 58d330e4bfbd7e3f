#include "server/feed.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"

namespace epo {
namespace {

using Kind = Feed::Slice::Kind;

class Listener : public FeedListener {
 public:
  void Wake() override {
    if (!woken.HasBeenNotified()) woken.Notify();
  }
  absl::Notification woken;
};

Update Step(int index, size_t padding = 0) {
  v1::Step step;
  step.set_index(index);
  if (padding > 0) step.add_slots()->set_next_token_text(std::string(padding, 'x'));
  return MakeStepUpdate(step);
}

Update Ended(int completed) {
  v1::Job job;
  job.set_completed_iterations(completed);
  return MakeEndedUpdate(job);
}

std::vector<int64_t> Sequences(const Feed::Slice& slice) {
  std::vector<int64_t> out;
  for (const Update& update : slice.updates) out.push_back(update->sequence());
  return out;
}

class FeedTest : public testing::Test {
 protected:
  std::shared_ptr<std::atomic<size_t>> bytes_ = std::make_shared<std::atomic<size_t>>(0);
  std::shared_ptr<Listener> listener_ = std::make_shared<Listener>();
};

TEST_F(FeedTest, ReadsOnFromAnySequenceNumber) {
  Feed feed(0, {}, bytes_);
  feed.Subscribe(listener_);
  EXPECT_EQ(feed.Read(1, 16).kind, Kind::kWait);
  for (int i = 0; i < 5; ++i) feed.Publish(Step(i));
  EXPECT_EQ(Sequences(feed.Read(1, 16)), (std::vector<int64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(Sequences(feed.Read(3, 2)), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(feed.Read(6, 16).kind, Kind::kWait);
  feed.Publish(Ended(5));
  EXPECT_EQ(Sequences(feed.Read(5, 16)), (std::vector<int64_t>{5}));
  for (int64_t next : {6, 7, 1000}) {
    const auto slice = feed.Read(next, 16);
    EXPECT_EQ(slice.kind, Kind::kEnded);
    EXPECT_EQ(Sequences(slice), (std::vector<int64_t>{6}));
  }
}

TEST_F(FeedTest, AJobThatGoesOnStartsBehind) {
  Feed feed(10, {}, bytes_);
  feed.Subscribe(listener_);
  EXPECT_EQ(feed.Read(10, 16).kind, Kind::kBehind);
  EXPECT_EQ(feed.Read(11, 16).kind, Kind::kWait);
  feed.Publish(Step(10));
  EXPECT_EQ(feed.Read(10, 16).kind, Kind::kBehind);
  EXPECT_EQ(Sequences(feed.Read(11, 16)), (std::vector<int64_t>{11}));
}

TEST_F(FeedTest, ASlowReaderFallsBehindTheTail) {
  Feed feed(0, {.tail_updates = 4}, bytes_);
  feed.Subscribe(listener_);
  for (int i = 0; i < 10; ++i) feed.Publish(Step(i));
  EXPECT_EQ(feed.Read(6, 16).kind, Kind::kBehind);
  EXPECT_EQ(Sequences(feed.Read(7, 16)), (std::vector<int64_t>{7, 8, 9, 10}));
}

TEST_F(FeedTest, KeepsNothingForNobody) {
  Feed feed(0, {}, bytes_);
  feed.Publish(Step(0, 1000));
  EXPECT_EQ(*bytes_, 0u);
  EXPECT_EQ(feed.Read(1, 16).kind, Kind::kBehind);
  feed.Subscribe(listener_);
  feed.Publish(Step(1, 1000));
  EXPECT_GT(*bytes_, 1000u);
  EXPECT_EQ(Sequences(feed.Read(2, 16)), (std::vector<int64_t>{2}));
  feed.Unsubscribe(listener_.get());
  EXPECT_EQ(*bytes_, 0u);
}

TEST_F(FeedTest, AllTailsTogetherAreBounded) {
  const FeedLimits limits{.tail_updates = 64, .total_bytes = 10'000};
  auto first = std::make_unique<Feed>(0, limits, bytes_);
  Feed second(0, limits, bytes_);
  first->Subscribe(listener_);
  second.Subscribe(listener_);
  for (int i = 0; i < 50; ++i) {
    first->Publish(Step(i, 900));
    second.Publish(Step(i, 900));
    ASSERT_LE(*bytes_, limits.total_bytes);
  }
  EXPECT_EQ(first->Read(50, 16).kind, Kind::kUpdates);
  EXPECT_EQ(second.Read(50, 16).kind, Kind::kUpdates);
  // Where there is no room left, readers are served from the store.
  Feed third(0, limits, bytes_);
  third.Subscribe(listener_);
  third.Publish(Step(0, 900));
  ASSERT_LE(*bytes_, limits.total_bytes);
  EXPECT_EQ(third.Read(1, 16).kind, Kind::kBehind);
  first.reset();
  third.Publish(Step(1, 900));
  EXPECT_EQ(Sequences(third.Read(2, 16)), (std::vector<int64_t>{2}));
}

TEST_F(FeedTest, PublishingWakesOnThePool) {
  WorkerPool pool(1);
  JobFeeds feeds(pool);
  feeds.Open("j1", 0);
  feeds.Find("j1")->Subscribe(listener_);
  absl::Notification release;
  pool.Post([&release] { release.WaitForNotification(); });
  // Neither a busy pool nor a listener that is gone holds up the publisher.
  feeds.Find("j1")->Subscribe(std::make_shared<Listener>());
  feeds.Publish("j1", Step(0));
  EXPECT_FALSE(listener_->woken.HasBeenNotified());
  release.Notify();
  listener_->woken.WaitForNotification();
}

TEST_F(FeedTest, TheEndClosesTheFeed) {
  WorkerPool pool(1);
  JobFeeds feeds(pool);
  feeds.Open("j1", 3);
  const auto feed = feeds.Find("j1");
  ASSERT_NE(feed, nullptr);
  feeds.Publish("j1", Ended(3));
  EXPECT_EQ(feeds.Find("j1"), nullptr);
  EXPECT_EQ(feed->Read(4, 16).kind, Kind::kEnded);
  feeds.Publish("j1", Step(4));  // of no feed: ignored
  feeds.Open("j2", 0);
  feeds.Close("j2");
  EXPECT_EQ(feeds.Find("j2"), nullptr);
}

}  // namespace
}  // namespace epo
