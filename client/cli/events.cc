#include "client/cli/events.h"

#include <pthread.h>

#include <utility>

namespace epo::cli {
namespace {

constexpr size_t kMostMessages = 64;
// Ends the thread of SignalEvents; no user sends it.
constexpr int kStop = SIGUSR2;

int StreamOf(const Event& event) {
  if (const auto* message = std::get_if<StreamMessage>(&event)) return message->stream;
  if (const auto* end = std::get_if<StreamEnd>(&event)) return end->stream;
  return 0;
}

}  // namespace

bool EventQueue::CanPush(const Event& event) const {
  return !std::holds_alternative<StreamMessage>(event) || events_.size() < kMostMessages ||
         StreamOf(event) <= closed_;
}

bool EventQueue::Push(Event event) {
  absl::MutexLock lock(&mutex_);
  const auto can_push = [this, &event]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return CanPush(event); };
  mutex_.Await(absl::Condition(&can_push));
  if (StreamOf(event) != 0 && StreamOf(event) <= closed_) return false;
  events_.push_back(std::move(event));
  return true;
}

std::optional<Event> EventQueue::Pop(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto has_event = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !events_.empty(); };
  if (!mutex_.AwaitWithDeadline(absl::Condition(&has_event), deadline)) return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void EventQueue::Close(int stream) {
  absl::MutexLock lock(&mutex_);
  closed_ = stream;
  std::erase_if(events_, [stream](const Event& event) {
    return StreamOf(event) != 0 && StreamOf(event) <= stream;
  });
}

SignalEvents::SignalEvents(EventQueue& queue) {
  sigemptyset(&signals_);
  for (const int number : {SIGINT, SIGTERM, SIGTSTP, SIGWINCH, kStop}) sigaddset(&signals_, number);
  pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  thread_ = std::thread([this, &queue] {
    int number = 0;
    while (sigwait(&signals_, &number) == 0 && number != kStop) queue.Push(Signal{number});
  });
}

SignalEvents::~SignalEvents() {
  pthread_kill(thread_.native_handle(), kStop);
  thread_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace epo::cli
