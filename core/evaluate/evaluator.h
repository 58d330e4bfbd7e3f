// Scores prompts on the resident model: parents with gradients, candidates packed. docs/epo.md has
// the equations.
#ifndef EPO_CORE_EVALUATE_EVALUATOR_H_
#define EPO_CORE_EVALUATE_EVALUATOR_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/types.h"
#include "core/evaluate/target.h"
#include "core/model/allowed_tokens.h"
#include "core/model/model.h"

namespace epo {

// What the search ranks a prompt by. Rounded to float32 whatever the model's dtype (parity with the
// reference implementation).
struct Score {
  // f(t).
  float target = 0;
  // x(t), nats a token: the mean of -log p(t_i | what precedes it) over the tokens that have
  // something before them, and over the contexts. NaN for a prompt of one token without a context.
  float cross_entropy = 0;

  friend bool operator==(const Score&, const Score&) = default;
};

// A prompt that the model has read in the contexts of its target, with what its children need: its
// score, K/V of every layer, log-probabilities, and, if asked for, the gradients of target and
// cross-entropy, kept apart so that they serve every penalty. Immutable. Holds device memory until
// the last reference goes; references may be dropped on any thread of a CPU model, only on the
// evaluator's thread of a CUDA model.
class Prepared {
 public:
  virtual ~Prepared() = default;
  virtual const Prompt& prompt() const = 0;
  virtual const std::shared_ptr<const Target>& target() const = 0;
  virtual Score score() const = 0;
  // One a term of the objective: its value, neither weighted nor scaled, the mean over contexts.
  virtual std::span<const double> term_values() const = 0;
  // The token that the model finds most probable after the prompt, and after the suffix of the
  // first context.
  virtual TokenId next_token() const = 0;
  virtual bool has_gradients() const = 0;
  // Bytes of the device's memory that it holds, contexts' prefixes, which many share, aside.
  virtual int64_t device_bytes() const = 0;
};

struct PrepareRequest {
  // Ids, each below vocab_size, of a length that the target takes.
  Prompt prompt;
  // Made for the evaluator's model.
  std::shared_ptr<const Target> target;
  // Whether Substitutes() will be asked for this prompt.
  bool gradients = true;
};

// Asks for the token that has the given rank among those whose gradient promises the most at one
// position.
struct SubstituteQuery {
  // Prepared with gradients. Borrowed for the call.
  const Prepared* parent = nullptr;
  // The cross-entropy penalty lambda of -f + lambda * x, whose gradient with respect to the
  // position's one-hot token ranks tokens.
  float penalty = 0;
  int position = 0;
  // 0 is the most negative gradient. Below the number of allowed tokens.
  int rank = 0;
  // Only these tokens are ranked. Borrowed for the call.
  const AllowedTokens* allowed = nullptr;
};

// A prompt that equals its parent before `first_changed` and reads `tokens` from there to its end.
struct Candidate {
  // Borrowed for the call.
  const Prepared* parent = nullptr;
  int first_changed = 0;
  // At least one id.
  std::vector<TokenId> tokens;
};

// What an evaluator has done since it was made.
struct EvaluatorCounters {
  int64_t prepared_prompts = 0;
  int64_t candidates = 0;
  // Rows (tokens) of candidates that entered the first layer, those that the output head saw, and
  // what scoring each candidate alone, its contexts' tokens included, would have entered.
  int64_t rows = 0;
  int64_t head_rows = 0;
  int64_t exhaustive_rows = 0;
  // Multiplications and additions of the matrix products with the model's weights.
  int64_t matmul_flops = 0;
  // Seconds by phase, on a monotonic clock: reading parents, ranking substitutes, the layers over
  // candidates, the head over them. On a GPU, which gets both in one piece, the head's seconds are
  // those of both.
  double prepare_seconds = 0;
  double substitute_seconds = 0;
  double layer_seconds = 0;
  double head_seconds = 0;
};

struct EvaluatorOptions {
  // The most rows that one forward pass takes (but always one prompt); longer work is cut into
  // passes. Bounds memory. 0: as many as keep the device busy, 4096 on a CPU and 16384 on a GPU.
  int max_rows = 0;
};

// Owned by one thread: no method is safe to call concurrently with another. Requests of many jobs
// may be mixed in one call; they share the matrix products and do not otherwise influence each
// other.
class Evaluator {
 public:
  // `model` must outlive the evaluator.
  static std::unique_ptr<Evaluator> Create(const Model& model, const EvaluatorOptions& options);

  virtual ~Evaluator() = default;

  // Reads each prompt; results in the requests' order. INVALID_ARGUMENT for a prompt of a length
  // that its target does not take, or an id without an embedding row; RESOURCE_EXHAUSTED when the
  // device's memory does not suffice.
  virtual absl::StatusOr<std::vector<std::shared_ptr<const Prepared>>> Prepare(
      std::span<const PrepareRequest> requests) = 0;

  // The substitutes asked for, in the queries' order. The gradient is rounded to float32 before it
  // is ranked.
  virtual absl::StatusOr<std::vector<TokenId>> Substitutes(
      std::span<const SubstituteQuery> queries) = 0;

  // Scores candidates under their parents' targets; results in the candidates' order.
  virtual absl::StatusOr<std::vector<Score>> ScoreCandidates(
      std::span<const Candidate> candidates) = 0;

  // From now on a pass takes at most this many rows (at least 1), and never more than the options
  // said. Changes no score.
  virtual void LimitRows(int max_rows) = 0;

  virtual const EvaluatorCounters& counters() const = 0;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_EVALUATOR_H_
