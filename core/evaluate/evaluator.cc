#include "core/evaluate/evaluator.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/evaluate/device_error.h"
#include "core/evaluate/model_target.h"
#include "core/evaluate/packed_pass.h"
#include "core/evaluate/phase_timer.h"
#include "core/evaluate/prepare.h"
#include "core/evaluate/score.h"
#include "core/evaluate/substitutes.h"
#include "core/model/device.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Rows of one Prepare pass. Fewer than a scoring pass takes, since each holds a row of
// log-probabilities over the vocabulary; on a GPU more, since 256 rows of a small model do not fill
// it.
constexpr size_t kPrepareRows = 256;
constexpr size_t kGpuPrepareRows = 1024;

// On a GPU, sizes are rounded up to these, so that steps repeat a few shapes: kernels are chosen,
// memory is laid out and the work is recorded once for each. 128 rows are what a GPU's matrix
// products are made of.
constexpr PassBuckets kGpuBuckets{.rows = 128, .candidates = 64, .parents = 8};
constexpr int64_t kGpuPrompts = 4;

// float64 is for comparisons, and follows the tensor operations that it is compared with.
bool UsesCpuKernels(const Weights& weights) {
  return weights.device().is_cpu() && weights.dtype() != c10::kDouble;
}

int DefaultRows(const Model& model) { return model.weights().device().is_cpu() ? 4096 : 16384; }

// A stream of the evaluator's own: the one that all use cannot be recorded. None on a CPU.
std::optional<c10::Stream> NewStream(c10::Device device) {
  if (device.is_cpu()) return std::nullopt;
  const c10::impl::VirtualGuardImpl guard(device.type());
  // What loaded the model ran on another.
  guard.synchronizeDevice(device.index());
  return guard.getStreamFromGlobalPool(device);
}

std::unique_ptr<PackedPass> MakePass(const Model& model, const GpuHelp& help) {
  if (UsesCpuKernels(model.weights())) {
    return MakeCpuPass(model);
  }
  return MakeTensorPass(model, help,
                        model.weights().device().is_cpu() ? PassBuckets{} : kGpuBuckets);
}

// Rows that reading a valid request costs.
size_t RowsToRead(const PrepareRequest& request) {
  const auto& target = static_cast<const ModelTarget&>(*request.target);
  int64_t rows = 0;
  for (const Branch& branch : target.PlanFor(std::ssize(request.prompt)).branches) {
    rows += branch.length - branch.start;
  }
  return static_cast<size_t>(rows);
}

class PackedEvaluator final : public Evaluator {
 public:
  PackedEvaluator(const Model& model, const EvaluatorOptions& options)
      : model_(model),
        most_rows_(options.max_rows > 0 ? options.max_rows : DefaultRows(model)),
        max_rows_(static_cast<size_t>(most_rows_)),
        prepare_rows_(model.weights().device().is_cpu() ? kPrepareRows : kGpuPrepareRows),
        stream_(NewStream(model.weights().device())),
        kernels_(MakeGpuKernels(model.weights().device(), model.weights().dtype(),
                                model.config().head_dim)),
        recorder_(MakeRecorder(model.weights().device())),
        reader_(model, {kernels_.get(), recorder_.get()}, kGpuPrompts),
        pass_(MakePass(model, {kernels_.get(), recorder_.get()})) {}

  absl::StatusOr<std::vector<std::shared_ptr<const Prepared>>> Prepare(
      std::span<const PrepareRequest> requests) override {
    for (const PrepareRequest& request : requests) {
      if (absl::Status status = Check(request); !status.ok()) return status;
    }
    const PhaseTimer timer(counters_.prepare_seconds);
    const c10::OptionalStreamGuard on(stream_);
    std::vector<std::shared_ptr<const Prepared>> results;
    try {
      for (size_t first = 0; first < requests.size();) {
        size_t rows = RowsToRead(requests[first]);
        size_t last = first + 1;
        while (last < requests.size() &&
               rows + RowsToRead(requests[last]) <= std::min(prepare_rows_, max_rows_) &&
               requests[last].gradients == requests[first].gradients) {
          rows += RowsToRead(requests[last++]);
        }
        auto pass = reader_.Read(requests.subspan(first, last - first), counters_);
        std::move(pass.begin(), pass.end(), std::back_inserter(results));
        first = last;
      }
    } catch (const c10::Error& error) {
      return DeviceError("reading prompts", error);
    }
    return results;
  }

  absl::StatusOr<std::vector<TokenId>> Substitutes(
      std::span<const SubstituteQuery> queries) override {
    for (const SubstituteQuery& query : queries) {
      if (!query.parent->has_gradients() || query.position < 0 ||
          query.position >= static_cast<int>(query.parent->prompt().size()) || query.rank < 0 ||
          query.rank >= static_cast<int>(query.allowed->ids.size())) {
        return absl::InvalidArgumentError(
            absl::StrCat("no substitute of rank ", query.rank, " at position ", query.position));
      }
    }
    const PhaseTimer timer(counters_.substitute_seconds);
    const c10::OptionalStreamGuard on(stream_);
    try {
      return RankSubstitutes(model_, queries, counters_);
    } catch (const c10::Error& error) {
      return DeviceError("ranking substitutes", error);
    }
  }

  absl::StatusOr<std::vector<Score>> ScoreCandidates(
      std::span<const Candidate> candidates) override {
    for (const Candidate& candidate : candidates) {
      if (absl::Status status = Check(candidate); !status.ok()) return status;
    }
    const c10::OptionalStreamGuard on(stream_);
    std::vector<Score> results;
    try {
      for (size_t first = 0; first < candidates.size();) {
        auto rows = static_cast<size_t>(RowsOf(candidates[first]));
        size_t last = first + 1;
        while (last < candidates.size() && rows + RowsOf(candidates[last]) <= max_rows_) {
          rows += RowsOf(candidates[last++]);
        }
        const auto pass =
            ScorePass(model_.config(), *pass_, candidates.subspan(first, last - first), counters_);
        results.insert(results.end(), pass.begin(), pass.end());
        first = last;
      }
    } catch (const c10::Error& error) {
      return DeviceError("scoring candidates", error);
    }
    return results;
  }

  void LimitRows(int max_rows) override {
    max_rows_ = static_cast<size_t>(std::clamp(max_rows, 1, most_rows_));
  }

  const EvaluatorCounters& counters() const override { return counters_; }

 private:
  absl::Status CheckIds(const Prompt& ids) const {
    for (const TokenId id : ids) {
      if (id < 0 || id >= model_.config().vocab_size) {
        return absl::InvalidArgumentError(
            absl::StrCat("token id ", id, " is not from 0 to ", model_.config().vocab_size - 1));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Check(const PrepareRequest& request) const {
    const absl::Status status =
        request.target->CheckLength(static_cast<int64_t>(request.prompt.size()));
    return status.ok() ? CheckIds(request.prompt) : status;
  }

  absl::Status Check(const Candidate& candidate) const {
    if (!candidate.parent->has_gradients() || candidate.tokens.empty() ||
        candidate.first_changed < 0 ||
        candidate.first_changed >= static_cast<int>(candidate.parent->prompt().size())) {
      return absl::InvalidArgumentError(absl::StrCat("a candidate cannot start at position ",
                                                     candidate.first_changed, " of its parent"));
    }
    if (absl::Status status = CheckIds(candidate.tokens); !status.ok()) return status;
    return CheckCandidate(candidate);
  }

  const Model& model_;
  const int most_rows_;
  size_t max_rows_;
  const size_t prepare_rows_;
  const std::optional<c10::Stream> stream_;
  const std::unique_ptr<GpuKernels> kernels_;
  const std::unique_ptr<Recorder> recorder_;
  PromptReader reader_;
  const std::unique_ptr<PackedPass> pass_;
  EvaluatorCounters counters_;
};

}  // namespace

std::unique_ptr<Evaluator> Evaluator::Create(const Model& model, const EvaluatorOptions& options) {
  return std::make_unique<PackedEvaluator>(model, options);
}

}  // namespace epo
