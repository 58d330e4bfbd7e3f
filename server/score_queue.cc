#include "server/score_queue.h"

#include <span>
#include <utility>

namespace epo {
namespace {

// What one Prepare() takes at most (but always one prompt): a prepared prompt holds its K/V and
// log-probabilities until it is read.
constexpr size_t kChunkPrompts = 32;
constexpr size_t kChunkTokens = 2048;

std::span<const PrepareRequest> NextChunk(const ScoreCall& call) {
  const size_t begin = call.scores.size();
  size_t end = begin;
  size_t tokens = 0;
  while (end < call.requests.size() && end - begin < kChunkPrompts) {
    tokens += call.requests[end].prompt.size();
    if (end > begin && tokens > kChunkTokens) break;
    ++end;
  }
  return std::span(call.requests).subspan(begin, end - begin);
}

}  // namespace

int ScoreQueue::Serve(Evaluator& evaluator, int budget) {
  int answered = 0;
  while (budget > 0 && !calls_.empty()) {
    ScoreCall call = std::move(calls_.front());
    calls_.pop_front();
    if (call.abandoned()) {
      call.done(absl::CancelledError("the caller has left"));
      ++answered;
      continue;
    }
    const std::span<const PrepareRequest> chunk = NextChunk(call);
    for (const PrepareRequest& request : chunk) budget -= static_cast<int>(request.prompt.size());
    auto prepared = evaluator.Prepare(chunk);
    if (!prepared.ok()) {
      call.done(prepared.status());
      ++answered;
      continue;
    }
    for (const auto& prompt : *prepared) call.scores.push_back(prompt->score());
    if (call.scores.size() < call.requests.size()) {
      calls_.push_back(std::move(call));
      continue;
    }
    call.done(std::move(call.scores));
    ++answered;
  }
  return answered;
}

int ScoreQueue::FailAll(const absl::Status& status) {
  const int count = static_cast<int>(calls_.size());
  for (ScoreCall& call : calls_) call.done(status);
  calls_.clear();
  return count;
}

}  // namespace epo
