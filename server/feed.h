// Where the model thread leaves a live job's updates and watchers pick them up: a bounded tail in
// memory, backed by the store.
#ifndef EPO_SERVER_FEED_H_
#define EPO_SERVER_FEED_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "epo/v1/service.pb.h"
#include "server/worker_pool.h"

namespace epo {

// One message of a watch, shared by all its watchers.
using Update = std::shared_ptr<const v1::WatchJobResponse>;

Update MakeStepUpdate(v1::Step step);
Update MakeEndedUpdate(v1::Job job);

// Is told that a feed has something new.
class FeedListener {
 public:
  virtual ~FeedListener() = default;
  // Must return at once.
  virtual void Wake() = 0;
};

struct FeedLimits {
  // Updates that one job's tail keeps.
  size_t tail_updates = 64;
  // Bytes that the tails of all jobs keep together.
  size_t total_bytes = 64 << 20;
};

// One live job's updates. Thread-safe; every call returns at once. What it does not hold any more
// is in the store, since an update is persisted before it is published.
class Feed {
 public:
  // `published`: the sequence number of the last update in the store.
  Feed(int64_t published, const FeedLimits& limits,
       std::shared_ptr<std::atomic<size_t>> total_bytes);
  ~Feed();

  // Appends the next update; one with `ended` set is the last. Wakes nobody: see JobFeeds.
  void Publish(Update update);

  // The job's state changed in between two updates. Wakes nobody.
  void NoteChange() { ++changes_; }
  // How often that was so.
  int64_t changes() const { return changes_; }

  void Subscribe(std::weak_ptr<FeedListener> listener);
  void Unsubscribe(const FeedListener* listener);
  void WakeListeners();

  struct Slice {
    enum class Kind {
      kUpdates,  // `updates` continue from the asked-for sequence number
      kBehind,   // the asked-for update is in the store only
      kWait,     // not published yet
      kEnded,    // `updates` has the terminal one, and no step from the asked-for number on exists
    };
    Kind kind;
    std::vector<Update> updates;
  };
  // Up to `limit` updates from sequence number `next` on.
  Slice Read(int64_t next, size_t limit) const;
  // The sequence number of the last step's update; 0 before the first.
  int64_t published() const;

 private:
  void DropFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const FeedLimits limits_;
  // Of all feeds; they may outlive the JobFeeds.
  const std::shared_ptr<std::atomic<size_t>> total_bytes_;
  std::atomic<int64_t> changes_ = 0;
  mutable absl::Mutex mutex_;
  // Consecutive, the last one being update `published_`; only while somebody listens.
  std::deque<Update> tail_ ABSL_GUARDED_BY(mutex_);
  int64_t published_ ABSL_GUARDED_BY(mutex_);
  Update ended_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<const FeedListener*, std::weak_ptr<FeedListener>> listeners_
      ABSL_GUARDED_BY(mutex_);
};

// The feeds of all live jobs, by job id. Thread-safe; every call returns at once.
class JobFeeds {
 public:
  // Listeners are woken on `pool`, which must outlive the feeds.
  explicit JobFeeds(WorkerPool& pool, const FeedLimits& limits = {});

  // Makes the feed of a job whose last persisted update is `published`. Called before the job can
  // be found in the store, so that a job that has no feed and is in the store has ended.
  void Open(const std::string& id, int64_t published);
  // Forgets the feed; its watchers keep what they hold.
  void Close(const std::string& id);
  // Null when the job is not live.
  std::shared_ptr<Feed> Find(const std::string& id) const;

  // Publishes to the job's watchers; a terminal update also closes the feed.
  void Publish(const std::string& id, const Update& update);
  // The job's state changed without an update.
  void NoteChange(const std::string& id);

 private:
  WorkerPool& pool_;
  const FeedLimits limits_;
  const std::shared_ptr<std::atomic<size_t>> total_bytes_ =
      std::make_shared<std::atomic<size_t>>(0);
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<Feed>> feeds_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace epo

#endif  // EPO_SERVER_FEED_H_
