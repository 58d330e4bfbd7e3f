#include "server/stream_registry.h"

#include <utility>

#include "absl/time/clock.h"

namespace epo {

StreamRegistry::StreamRegistry() : ticker_([this] { Run(); }) {}

StreamRegistry::~StreamRegistry() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  ticker_.join();
}

void StreamRegistry::Add(const std::shared_ptr<Stream>& stream) {
  std::optional<grpc::Status> drained;
  {
    absl::MutexLock lock(&mutex_);
    streams_[stream.get()] = stream;
    drained = drained_;
  }
  if (drained.has_value()) stream->Drain(*drained);
}

void StreamRegistry::Remove(const Stream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void StreamRegistry::Drain(const grpc::Status& status) {
  std::vector<std::shared_ptr<Stream>> open;
  {
    absl::MutexLock lock(&mutex_);
    drained_ = status;
    open = Open();
  }
  for (const auto& stream : open) stream->Drain(status);
}

void StreamRegistry::WaitUntilEmpty(absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithDeadline(absl::Condition(this, &StreamRegistry::NoneOpen), deadline);
}

std::vector<std::shared_ptr<Stream>> StreamRegistry::Open() const {
  std::vector<std::shared_ptr<Stream>> open;
  open.reserve(streams_.size());
  for (const auto& [key, stream] : streams_) {
    if (auto held = stream.lock()) open.push_back(std::move(held));
  }
  return open;
}

void StreamRegistry::Run() {
  while (true) {
    std::vector<std::shared_ptr<Stream>> open;
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::Seconds(1))) return;
      open = Open();
    }
    const absl::Time now = absl::Now();
    for (const auto& stream : open) stream->Tick(now);
  }
}

}  // namespace epo
