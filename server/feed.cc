#include "server/feed.h"

#include <algorithm>
#include <utility>

namespace epo {

Update MakeStepUpdate(v1::Step step) {
  auto update = std::make_shared<v1::WatchJobResponse>();
  update->set_sequence(int64_t{step.index()} + 1);
  *update->mutable_step() = std::move(step);
  return update;
}

Update MakeEndedUpdate(v1::Job job) {
  auto update = std::make_shared<v1::WatchJobResponse>();
  update->set_sequence(int64_t{job.completed_iterations()} + 1);
  *update->mutable_ended() = std::move(job);
  return update;
}

Feed::Feed(int64_t published, const FeedLimits& limits,
           std::shared_ptr<std::atomic<size_t>> total_bytes)
    : limits_(limits), total_bytes_(std::move(total_bytes)), published_(published) {}

Feed::~Feed() {
  absl::MutexLock lock(&mutex_);
  while (!tail_.empty()) DropFront();
}

void Feed::DropFront() {
  *total_bytes_ -= tail_.front()->ByteSizeLong();
  tail_.pop_front();
}

void Feed::Publish(Update update) {
  absl::MutexLock lock(&mutex_);
  if (update->has_ended()) {
    ended_ = std::move(update);
    return;
  }
  published_ = update->sequence();
  if (listeners_.empty()) return;
  *total_bytes_ += update->ByteSizeLong();
  tail_.push_back(std::move(update));
  while (!tail_.empty() &&
         (tail_.size() > limits_.tail_updates || *total_bytes_ > limits_.total_bytes)) {
    DropFront();
  }
}

void Feed::Subscribe(std::weak_ptr<FeedListener> listener) {
  const FeedListener* key = listener.lock().get();
  absl::MutexLock lock(&mutex_);
  listeners_[key] = std::move(listener);
}

void Feed::Unsubscribe(const FeedListener* listener) {
  absl::MutexLock lock(&mutex_);
  listeners_.erase(listener);
  if (!listeners_.empty()) return;
  while (!tail_.empty()) DropFront();
}

void Feed::WakeListeners() {
  std::vector<std::shared_ptr<FeedListener>> listeners;
  {
    absl::MutexLock lock(&mutex_);
    listeners.reserve(listeners_.size());
    for (const auto& [key, listener] : listeners_) {
      if (auto held = listener.lock()) listeners.push_back(std::move(held));
    }
  }
  for (const auto& listener : listeners) listener->Wake();
}

Feed::Slice Feed::Read(int64_t next, size_t limit) const {
  absl::MutexLock lock(&mutex_);
  if (next > published_) {
    if (ended_ != nullptr) return {Slice::Kind::kEnded, {ended_}};
    return {Slice::Kind::kWait, {}};
  }
  const int64_t first = published_ - static_cast<int64_t>(tail_.size()) + 1;
  if (next < first) return {Slice::Kind::kBehind, {}};
  const auto begin = tail_.begin() + (next - first);
  const size_t count = std::min<size_t>(limit, tail_.end() - begin);
  return {Slice::Kind::kUpdates, {begin, begin + static_cast<int64_t>(count)}};
}

int64_t Feed::published() const {
  absl::MutexLock lock(&mutex_);
  return published_;
}

JobFeeds::JobFeeds(WorkerPool& pool, const FeedLimits& limits) : pool_(pool), limits_(limits) {}

void JobFeeds::Open(const std::string& id, int64_t published) {
  auto feed = std::make_shared<Feed>(published, limits_, total_bytes_);
  absl::MutexLock lock(&mutex_);
  feeds_[id] = std::move(feed);
}

void JobFeeds::Close(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  feeds_.erase(id);
}

std::shared_ptr<Feed> JobFeeds::Find(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = feeds_.find(id);
  return it == feeds_.end() ? nullptr : it->second;
}

void JobFeeds::NoteChange(const std::string& id) {
  std::shared_ptr<Feed> feed = Find(id);
  if (feed == nullptr) return;
  feed->NoteChange();
  pool_.Post([feed = std::move(feed)] { feed->WakeListeners(); });
}

void JobFeeds::Publish(const std::string& id, const Update& update) {
  std::shared_ptr<Feed> feed = Find(id);
  if (feed == nullptr) return;
  feed->Publish(update);
  if (update->has_ended()) Close(id);
  // One task for all watchers, so that the publisher's cost does not grow with their number.
  pool_.Post([feed = std::move(feed)] { feed->WakeListeners(); });
}

}  // namespace epo
