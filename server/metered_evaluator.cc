#include "server/metered_evaluator.h"

#include <utility>

namespace epo {
namespace {

class MeteredEvaluator final : public Evaluator {
 public:
  MeteredEvaluator(std::unique_ptr<Evaluator> evaluator, Metrics& metrics)
      : evaluator_(std::move(evaluator)), metrics_(metrics) {}

  absl::StatusOr<std::vector<std::shared_ptr<const Prepared>>> Prepare(
      std::span<const PrepareRequest> requests) override {
    return Count(evaluator_->Prepare(requests));
  }

  absl::StatusOr<std::vector<TokenId>> Substitutes(
      std::span<const SubstituteQuery> queries) override {
    return Count(evaluator_->Substitutes(queries));
  }

  absl::StatusOr<std::vector<Score>> ScoreCandidates(
      std::span<const Candidate> candidates) override {
    return Count(evaluator_->ScoreCandidates(candidates));
  }

  void LimitRows(int max_rows) override { evaluator_->LimitRows(max_rows); }
  const EvaluatorCounters& counters() const override { return evaluator_->counters(); }

 private:
  template <class Result>
  Result Count(Result result) {
    if (!result.ok()) metrics_.EvaluatorFailed(static_cast<int>(result.status().code()));
    metrics_.Evaluated(counted_, evaluator_->counters());
    counted_ = evaluator_->counters();
    return result;
  }

  const std::unique_ptr<Evaluator> evaluator_;
  Metrics& metrics_;
  // What `metrics_` has been told of.
  EvaluatorCounters counted_;
};

}  // namespace

std::unique_ptr<Evaluator> MeterEvaluator(std::unique_ptr<Evaluator> evaluator, Metrics& metrics) {
  return std::make_unique<MeteredEvaluator>(std::move(evaluator), metrics);
}

}  // namespace epo
