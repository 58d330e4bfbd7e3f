#include "server/model_calls.h"

#include <algorithm>
#include <utility>

#include "server/convert_objective.h"

namespace epo {
namespace {

// What one Prepare() takes at most (but always one prompt): a prepared prompt holds its K/V and
// log-probabilities until it is read.
constexpr size_t kChunkPrompts = 32;
constexpr size_t kChunkTokens = 2048;

class ScoreCall final : public ModelCall {
 public:
  using Done = std::function<void(absl::StatusOr<std::vector<Score>>)>;

  ScoreCall(const Model& model, ScoreSpec spec, std::function<bool()> abandoned, Done done)
      : model_(model),
        spec_(std::move(spec)),
        abandoned_(std::move(abandoned)),
        done_(std::move(done)) {}

  absl::StatusOr<bool> Advance(Evaluator& evaluator, int& budget) override {
    if (target_ == nullptr) {
      auto target = Target::Create(model_, spec_.objective);
      if (!target.ok()) return target.status();
      target_ = *std::move(target);
    }
    const std::vector<PrepareRequest> chunk = NextChunk(budget);
    auto prepared = evaluator.Prepare(chunk);
    if (!prepared.ok()) return prepared.status();
    for (const auto& prompt : *prepared) scores_.push_back(prompt->score());
    if (scores_.size() < spec_.prompts.size()) return false;
    done_(std::move(scores_));
    return true;
  }

  bool abandoned() const override { return abandoned_(); }
  void Fail(const absl::Status& status) override { done_(status); }

 private:
  std::vector<PrepareRequest> NextChunk(int& budget) const {
    std::vector<PrepareRequest> chunk;
    size_t rows = 0;
    for (size_t i = scores_.size(); i < spec_.prompts.size() && chunk.size() < kChunkPrompts; ++i) {
      const auto more = static_cast<size_t>(
          RowsAPrompt(spec_.objective, static_cast<int>(spec_.prompts[i].size())));
      if (!chunk.empty() && rows + more > kChunkTokens) break;
      rows += more;
      chunk.push_back({spec_.prompts[i], target_, /*gradients=*/false});
    }
    budget -= static_cast<int>(rows);
    return chunk;
  }

  const Model& model_;
  const ScoreSpec spec_;
  const std::function<bool()> abandoned_;
  const Done done_;
  // Made at the first turn.
  std::shared_ptr<const Target> target_;
  // Of the first prompts.
  std::vector<Score> scores_;
};

class AttributeCall final : public ModelCall {
 public:
  AttributeCall(const Model& model, ScoreSpec spec, int count,
                std::shared_ptr<const AllowedTokens> allowed, std::shared_ptr<AttributionSink> sink)
      : model_(model),
        spec_(std::move(spec)),
        count_(count),
        allowed_(std::move(allowed)),
        sink_(std::move(sink)) {}

  absl::StatusOr<bool> Advance(Evaluator& evaluator, int& budget) override {
    const Prompt& prompt = spec_.prompts[0];
    const auto length = static_cast<int>(prompt.size());
    const auto rows = static_cast<int>(RowsAPrompt(spec_.objective, length));
    if (parent_ == nullptr) {
      budget -= rows;
      return Begin(evaluator);
    }
    // As many positions as the budget has, one at least.
    const int positions = std::clamp(budget / std::max(1, count_ * rows), 1, length - next_);
    budget -= positions * count_ * rows;
    auto found = AttributeTokens(evaluator, *parent_, next_, next_ + positions, count_, *allowed_);
    if (!found.ok()) return found.status();
    for (std::vector<Substitute>& here : *found) sink_->Add(next_++, std::move(here));
    if (next_ < length) return false;
    sink_->End(absl::OkStatus());
    return true;
  }

  bool abandoned() const override { return sink_->abandoned(); }
  void Fail(const absl::Status& status) override { sink_->End(status); }

 private:
  absl::StatusOr<bool> Begin(Evaluator& evaluator) {
    auto target = Target::Create(model_, spec_.objective);
    if (!target.ok()) return target.status();
    const PrepareRequest request{spec_.prompts[0], *std::move(target), /*gradients=*/true};
    auto prepared = evaluator.Prepare({&request, 1});
    if (!prepared.ok()) return prepared.status();
    parent_ = prepared->front();
    sink_->Begin(parent_->score());
    return false;
  }

  const Model& model_;
  const ScoreSpec spec_;
  const int count_;
  const std::shared_ptr<const AllowedTokens> allowed_;
  const std::shared_ptr<AttributionSink> sink_;
  // Made at the first turn.
  std::shared_ptr<const Prepared> parent_;
  // The first position that is to come.
  int next_ = 0;
};

}  // namespace

std::unique_ptr<ModelCall> MakeScoreCall(
    const Model& model, ScoreSpec spec, std::function<bool()> abandoned,
    std::function<void(absl::StatusOr<std::vector<Score>>)> done) {
  return std::make_unique<ScoreCall>(model, std::move(spec), std::move(abandoned), std::move(done));
}

std::unique_ptr<ModelCall> MakeAttributeCall(const Model& model, ScoreSpec spec, int count,
                                             std::shared_ptr<const AllowedTokens> allowed,
                                             std::shared_ptr<AttributionSink> sink) {
  return std::make_unique<AttributeCall>(model, std::move(spec), count, std::move(allowed),
                                         std::move(sink));
}

int ModelCalls::Serve(Evaluator& evaluator, int budget) {
  int answered = 0;
  while (budget > 0 && !calls_.empty()) {
    std::unique_ptr<ModelCall> call = std::move(calls_.front());
    calls_.pop_front();
    const absl::StatusOr<bool> done = call->abandoned()
                                          ? absl::CancelledError("the caller has left")
                                          : call->Advance(evaluator, budget);
    if (done.ok() && !*done) {
      calls_.push_back(std::move(call));
      continue;
    }
    if (!done.ok()) call->Fail(done.status());
    ++answered;
  }
  return answered;
}

int ModelCalls::FailAll(const absl::Status& status) {
  const int count = static_cast<int>(calls_.size());
  for (const auto& call : calls_) call->Fail(status);
  calls_.clear();
  return count;
}

}  // namespace epo
