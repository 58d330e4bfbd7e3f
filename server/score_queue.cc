#include "server/score_queue.h"

#include <utility>

#include "server/convert_objective.h"

namespace epo {
namespace {

// What one Prepare() takes at most (but always one prompt): a prepared prompt holds its K/V and
// log-probabilities until it is read.
constexpr size_t kChunkPrompts = 32;
constexpr size_t kChunkTokens = 2048;

std::vector<PrepareRequest> NextChunk(const ScoreCall& call, size_t rows_besides) {
  std::vector<PrepareRequest> chunk;
  size_t tokens = 0;
  for (size_t i = call.scores.size(); i < call.prompts.size() && chunk.size() < kChunkPrompts;
       ++i) {
    tokens += call.prompts[i].size() + rows_besides;
    if (!chunk.empty() && tokens > kChunkTokens) break;
    chunk.push_back({call.prompts[i], call.target, /*gradients=*/false});
  }
  return chunk;
}

}  // namespace

absl::Status ScoreQueue::Advance(Evaluator& evaluator, ScoreCall& call, int& budget) {
  if (call.target == nullptr) {
    auto target = Target::Create(model_, call.objective);
    if (!target.ok()) return target.status();
    call.target = *std::move(target);
  }
  const auto rows = [&](int tokens) { return RowsAPrompt(call.objective, tokens); };
  const std::vector<PrepareRequest> chunk = NextChunk(call, static_cast<size_t>(rows(0)));
  for (const PrepareRequest& request : chunk) {
    budget -= static_cast<int>(rows(static_cast<int>(request.prompt.size())));
  }
  auto prepared = evaluator.Prepare(chunk);
  if (!prepared.ok()) return prepared.status();
  for (const auto& prompt : *prepared) call.scores.push_back(prompt->score());
  return absl::OkStatus();
}

int ScoreQueue::Serve(Evaluator& evaluator, int budget) {
  int answered = 0;
  while (budget > 0 && !calls_.empty()) {
    ScoreCall call = std::move(calls_.front());
    calls_.pop_front();
    const absl::Status status = call.abandoned() ? absl::CancelledError("the caller has left")
                                                 : Advance(evaluator, call, budget);
    if (status.ok() && call.scores.size() < call.prompts.size()) {
      calls_.push_back(std::move(call));
      continue;
    }
    if (status.ok()) {
      call.done(std::move(call.scores));
    } else {
      call.done(status);
    }
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
