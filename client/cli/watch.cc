#include "client/cli/watch.h"

#include <absl/random/random.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "client/cli/errors.h"

namespace epo::cli {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);

// One WatchJob call, read on a thread of its own. Its destructor leaves the call, which never harms
// the job.
class Stream {
 public:
  Stream(int number, Client& client, const v1::WatchJobRequest& request, EventQueue& events)
      : number_(number), events_(events), thread_([this, &client, request] {
          grpc::Status status = client.Connect(stop_);
          if (status.ok()) status = Read(client, request);
          events_.Push(StreamEnd{number_, status});
        }) {}

  ~Stream() {
    stop_ = true;
    context_.TryCancel();
    events_.Close(number_);
    thread_.join();
  }

 private:
  grpc::Status Read(Client& client, const v1::WatchJobRequest& request) {
    client.Authorize(context_);
    const auto reader = client.stub().WatchJob(&context_, request);
    v1::WatchJobResponse response;
    while (reader->Read(&response)) {
      // Closed: the call has been cancelled, and Finish() returns at once.
      if (!events_.Push(StreamMessage{number_, std::move(response)})) break;
      response.Clear();
    }
    return reader->Finish();
  }

  const int number_;
  EventQueue& events_;
  std::atomic<bool> stop_ = false;
  grpc::ClientContext context_;
  std::thread thread_;
};

class Watching {
 public:
  Watching(Client& client, const std::string& id, const WatchOptions& options, EventQueue& events,
           Watcher& watcher)
      : client_(client),
        id_(id),
        options_(options),
        events_(events),
        watcher_(watcher),
        ever_heard_(options.reached),
        last_(options.after_sequence) {}

  WatchResult Run() {
    absl::Duration backoff = options_.first_backoff;
    for (int number = 1;; ++number) {
      heard_ = false;
      const std::optional<grpc::Status> status = Follow(number);
      if (!status) return result_;
      if (heard_) {
        lost_since_.reset();
        backoff = options_.first_backoff;
      }
      if (!Passes(*status) || !ever_heard_) {
        return {WatchResult::kError, {}, *status};
      }
      const absl::Time now = absl::Now();
      if (!lost_since_) lost_since_ = now;
      if (now - *lost_since_ >= options_.give_up_after) {
        return {WatchResult::kError, {}, *status};
      }
      watcher_.OnLost(*status, *lost_since_);
      if (!Pause(now + backoff * absl::Uniform(random_, 0.5, 1.0))) return result_;
      backoff = std::min(2 * backoff, options_.longest_backoff);
    }
  }

 private:
  // Whether what ended a stream may be over soon. A server that goes away cancels what is left.
  static bool Passes(const grpc::Status& status) {
    return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
           status.error_code() == grpc::StatusCode::CANCELLED || HasRetryInfo(status);
  }

  // Reads one stream. The status that it ended with, or none when result_ is final.
  std::optional<grpc::Status> Follow(int number) {
    v1::WatchJobRequest request;
    request.set_id(id_);
    request.set_after_sequence(last_);
    if (options_.latest) request.set_delivery(v1::WatchJobRequest::LATEST);
    const Stream stream(number, client_, request, events_);
    for (;;) {
      const std::optional<Event> event = events_.Pop(absl::Now() + kTick);
      if (!event) {
        watcher_.OnIdle();
      } else if (const auto* signal = std::get_if<Signal>(&*event)) {
        if (!Handle(*signal)) return std::nullopt;
      } else if (const auto* message = std::get_if<StreamMessage>(&*event)) {
        heard_ = ever_heard_ = true;
        if (const auto status = Handle(message->response); !status.ok()) return status;
        if (result_.kind == WatchResult::kEnded) return std::nullopt;
      } else {
        const grpc::Status& status = std::get<StreamEnd>(*event).status;
        if (!status.ok()) return status;
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream ended before the job did");
      }
    }
  }

  // Takes one message; UNAVAILABLE when it does not follow what came before.
  grpc::Status Handle(const v1::WatchJobResponse& response) {
    if (response.has_created()) watcher_.OnFound(response.created());
    if (response.has_heartbeat() && response.heartbeat().has_job()) {
      watcher_.OnState(response.heartbeat().job());
    }
    if (!response.has_step() && !response.has_ended()) return grpc::Status::OK;
    if (response.sequence() <= last_) return grpc::Status::OK;
    if (response.sequence() > last_ + 1 && !options_.latest) {
      // Not a contact that resets the clock, or a server that always does so would be asked
      // forever.
      heard_ = false;
      return {grpc::StatusCode::UNAVAILABLE,
              absl::StrCat("the stream left out the updates ", last_ + 1, " to ",
                           response.sequence() - 1)};
    }
    last_ = response.sequence();
    watcher_.OnUpdate(response);
    if (response.has_ended()) {
      result_.kind = WatchResult::kEnded;
      result_.job = response.ended();
    }
    return grpc::Status::OK;
  }

  // False when the signal ends the watch.
  bool Handle(Signal signal) {
    if (signal.number == SIGINT || signal.number == SIGTERM) {
      result_.kind = WatchResult::kDetached;
      return false;
    }
    watcher_.OnSignal(signal.number);
    return true;
  }

  // Waits; false when a signal ended the watch meanwhile.
  bool Pause(absl::Time until) {
    while (absl::Now() < until) {
      const std::optional<Event> event = events_.Pop(std::min(until, absl::Now() + kTick));
      if (!event) {
        watcher_.OnIdle();
      } else if (const auto* signal = std::get_if<Signal>(&*event); signal && !Handle(*signal)) {
        return false;
      }
    }
    return true;
  }

  Client& client_;
  const std::string id_;
  const WatchOptions options_;
  EventQueue& events_;
  Watcher& watcher_;
  absl::BitGen random_;
  // Whether the current stream, or any, brought a message.
  bool heard_ = false;
  bool ever_heard_;
  // Sequence number of the last update told.
  int64_t last_;
  std::optional<absl::Time> lost_since_;
  WatchResult result_;
};

}  // namespace

WatchResult Watch(Client& client, const std::string& id, const WatchOptions& options,
                  EventQueue& events, Watcher& watcher) {
  return Watching(client, id, options, events, watcher).Run();
}

}  // namespace epo::cli
