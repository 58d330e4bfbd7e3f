#include "server/streams.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/find_job.h"
#include "server/frontier_history.h"
#include "server/job_state.h"
#include "server/status.h"
#include "server/stream_reactor.h"

namespace epo {
namespace {

constexpr int kBatch = 16;

absl::Status OrJobNotFound(const absl::Status& status, const std::string& id) {
  return absl::IsNotFound(status) ? JobNotFound(id) : status;
}

// What both requests must fulfil.
absl::Status Check(const std::string& id, const std::string& position_field, int64_t position) {
  FieldViolations violations;
  if (id.empty()) violations.push_back({"id", "is required"});
  if (position < 0) {
    violations.push_back({position_field, absl::StrCat("is ", position, "; give 0 or more")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

class WatchStream final : public StreamReactor<v1::WatchJobResponse>, public FeedListener {
 public:
  WatchStream(const StreamSources& sources, const CallContext& context,
              const v1::WatchJobRequest& request)
      : StreamReactor(sources.pool, sources.registry),
        sources_(sources),
        context_(context),
        id_(request.id()),
        after_(request.after_sequence()),
        delivery_(request.delivery()) {}

  void Wake() override { StreamReactor::Wake(); }

 private:
  absl::StatusOr<Batch> Fetch() override { return next_ == 0 ? Begin() : Continue(); }

  MessagePtr Heartbeat() override {
    auto message = std::make_shared<v1::WatchJobResponse>();
    v1::Heartbeat& heartbeat = *message->mutable_heartbeat();
    // Without the job where the store cannot be read just now: the stream is alive all the same.
    if (absl::StatusOr<v1::Job> job = sources_.store.GetJob(id_); job.ok()) {
      sources_.describe(*job);
      *heartbeat.mutable_job() = *std::move(job);
    }
    sources_.metrics.Heartbeat();
    return message;
  }

  void Ended() override {
    absl::MutexLock lock(&feed_mutex_);
    over_ = true;
    if (feed_ != nullptr) feed_->Unsubscribe(this);
  }

  absl::StatusOr<Batch> Begin() {
    if (absl::Status status = Check(id_, "after_sequence", after_); !status.ok()) return status;
    if (!v1::WatchJobRequest::Delivery_IsValid(delivery_)) {
      return InvalidFields({{"delivery", absl::StrCat(static_cast<int>(delivery_),
                                                      " is no delivery; give EVERY or LATEST")}});
    }
    std::shared_ptr<Feed> feed = sources_.feeds.Find(id_);
    // Counted before the job is read, so that no later change is missed.
    const int64_t changes = feed == nullptr ? 0 : feed->changes();
    absl::StatusOr<v1::Job> job = FindJob(sources_.store, context_, id_);
    if (!job.ok()) return job.status();
    if (feed == nullptr && !IsTerminal(job->state())) {
      // Created between the two look-ups: a feed is opened before its job is stored.
      feed = sources_.feeds.Find(id_);
      job = FindJob(sources_.store, context_, id_);
      if (!job.ok()) return job.status();
    }
    sources_.describe(*job);
    completed_ = job->completed_iterations();
    if (feed != nullptr) {
      changes_ = changes;
      Listen(std::move(feed));
    }
    next_ = std::min(after_, std::numeric_limits<int64_t>::max() - 1) + 1;
    auto created = std::make_shared<v1::WatchJobResponse>();
    *created->mutable_created() = *std::move(job);
    return Batch{{std::move(created)}, Batch::Then::kFetch};
  }

  void Listen(std::shared_ptr<Feed> feed) {
    absl::MutexLock lock(&feed_mutex_);
    if (over_) return;
    feed->Subscribe(std::static_pointer_cast<WatchStream>(shared_from_this()));
    feed_ = std::move(feed);
  }

  std::shared_ptr<Feed> feed() {
    absl::MutexLock lock(&feed_mutex_);
    return feed_;
  }

  absl::StatusOr<Batch> Continue() {
    const std::shared_ptr<Feed> feed = this->feed();
    // There is room for one message: of those that wait, LATEST takes the newest.
    if (delivery_ == v1::WatchJobRequest::LATEST) {
      const int64_t newest = feed != nullptr ? feed->published() : completed_;
      if (newest > next_) sources_.metrics.Coalesced(newest - next_);
      next_ = std::max(next_, newest);
    }
    if (feed != nullptr) {
      Feed::Slice slice = feed->Read(next_, kBatch);
      switch (slice.kind) {
        case Feed::Slice::Kind::kUpdates:
          next_ = slice.updates.back()->sequence() + 1;
          return Batch{std::move(slice.updates), Batch::Then::kFetch};
        case Feed::Slice::Kind::kWait:
          if (const int64_t changes = feed->changes(); changes != changes_) {
            changes_ = changes;
            return Batch{{Heartbeat()}, Batch::Then::kFetch};
          }
          return Batch{{}, Batch::Then::kWait};
        case Feed::Slice::Kind::kEnded:
          return Batch{std::move(slice.updates), Batch::Then::kFinish};
        case Feed::Slice::Kind::kBehind:
          break;
      }
    }
    return FromStore();
  }

  absl::StatusOr<Batch> FromStore() {
    const int first =
        static_cast<int>(std::min<int64_t>(next_ - 1, std::numeric_limits<int32_t>::max()));
    absl::StatusOr<std::vector<v1::Step>> steps = sources_.store.GetSteps(id_, first, kBatch);
    if (!steps.ok()) return OrJobNotFound(steps.status(), id_);
    if (!steps->empty()) {
      Batch batch{{}, Batch::Then::kFetch};
      for (v1::Step& step : *steps) batch.messages.push_back(MakeStepUpdate(std::move(step)));
      next_ = batch.messages.back()->sequence() + 1;
      return batch;
    }
    absl::StatusOr<v1::Job> job = sources_.store.GetJob(id_);
    if (!job.ok()) return OrJobNotFound(job.status(), id_);
    if (!IsTerminal(job->state())) {
      return absl::DataLossError(absl::StrCat("step ", first, " of job \"", id_,
                                              "\" was published but is not in the store"));
    }
    return Batch{{MakeEndedUpdate(*std::move(job))}, Batch::Then::kFinish};
  }

  const StreamSources sources_;
  const CallContext context_;
  const std::string id_;
  const int64_t after_;
  const v1::WatchJobRequest::Delivery delivery_;
  // Changes of the job's state that were told. Only for Fetch().
  int64_t changes_ = 0;
  // Steps that the job had when the watch began. Only for Fetch().
  int64_t completed_ = 0;
  // The sequence number to send next; 0 before `created`. Only for Fetch().
  int64_t next_ = 0;

  absl::Mutex feed_mutex_;
  // Null when the job had ended before the watch began.
  std::shared_ptr<Feed> feed_ ABSL_GUARDED_BY(feed_mutex_);
  bool over_ ABSL_GUARDED_BY(feed_mutex_) = false;
};

class HistoryStream final : public StreamReactor<v1::Iteration> {
 public:
  HistoryStream(const StreamSources& sources, const CallContext& context,
                const v1::GetHistoryRequest& request)
      : StreamReactor(sources.pool, sources.registry),
        store_(sources.store),
        context_(context),
        id_(request.id()),
        next_(request.first_iteration()) {}

 private:
  absl::StatusOr<Batch> Fetch() override {
    if (!found_) {
      if (absl::Status status = Check(id_, "first_iteration", next_); !status.ok()) return status;
      auto job = FindJob(store_, context_, id_);
      if (!job.ok()) return job.status();
      reduced_ = job->spec().history() == v1::FRONTIER;
      found_ = true;
    }
    absl::StatusOr<std::vector<v1::Iteration>> page = store_.GetIterations(id_, next_, kBatch);
    if (!page.ok()) return OrJobNotFound(page.status(), id_);
    if (page->empty()) return Batch{{}, Batch::Then::kFinish};
    Batch batch{{}, Batch::Then::kFetch};
    next_ = page->back().index() + 1;
    for (v1::Iteration& iteration : *page) {
      if (reduced_) LeaveSurvivors(iteration);
      batch.messages.push_back(std::make_shared<v1::Iteration>(std::move(iteration)));
    }
    return batch;
  }

  Store& store_;
  const CallContext context_;
  const std::string id_;
  // Only for Fetch(): whether the job was found, whether its history is FRONTIER, and the iteration
  // to send next.
  bool found_ = false;
  bool reduced_ = false;
  int next_;
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(const StreamSources& sources,
                                                         const CallContext& context,
                                                         const v1::WatchJobRequest& request) {
  auto stream = std::make_shared<WatchStream>(sources, context, request);
  auto* reactor = stream.get();
  stream->Start();
  return reactor;
}

grpc::ServerWriteReactor<v1::Iteration>* GetHistory(const StreamSources& sources,
                                                    const CallContext& context,
                                                    const v1::GetHistoryRequest& request) {
  auto stream = std::make_shared<HistoryStream>(sources, context, request);
  auto* reactor = stream.get();
  stream->Start();
  return reactor;
}

}  // namespace epo
