// What a target reads in a prompt of one length: which rows of the model, which numbers in them,
// and how these become f(t). Knows no torch.
#ifndef EPO_CORE_EVALUATE_PLAN_H_
#define EPO_CORE_EVALUATE_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/model_config.h"
#include "core/objective/objective.h"

namespace epo {

// Of what, and how, a number is read from a row.
struct Read {
  enum class Kind {
    kElement,       // x[which]
    kDot,           // x . vector
    kStandardised,  // (x - mean) / standard deviation . vector
    kCosine,        // x . vector / |x|, for a vector of length 1
    kAttention,     // the softmax weight that head `which` gives a key
    kLogit,         // of the token `which` as the next
    kBestOther,     // the greatest logit of all tokens but `which`
    kSurprisal,     // -log p of the token that follows in the sequence
  };
  // What x is; the last three kinds read the head, and have none.
  enum class Site {
    // The residual stream after `layer` layers, [hidden].
    kResidual,
    // Within `layer`: the heads' outputs, [heads * head_dim]; the residual stream after the
    // attention; the neurons, [intermediate].
    kHeads,
    kPostAttention,
    kNeurons,
    kHead,
  };

  Kind kind = Kind::kElement;
  Site site = Site::kHead;
  int64_t layer = 0;
  int64_t which = 0;
  // Among the target's vectors.
  size_t vector = 0;

  // Layers that a row has to pass before this can be read from it.
  int64_t Depth(const ModelConfig& config) const {
    if (site == Site::kHead) return config.layers;
    return site == Site::kResidual ? layer : layer + 1;
  }
};

struct PlannedRead {
  // Among the target's reads.
  size_t read = 0;
  // The row's position in the branch's sequence.
  int64_t row = 0;
  // Of kAttention: the key's position.
  int64_t key = 0;
};

// One sequence that a prompt is read in: fixed tokens, the prompt, fixed tokens. A context is one,
// and one more for each continuation after its first. Positions count from the sequence's start.
struct Branch {
  size_t context = 0;
  // Whether the cross-entropy is read in it: of each context the first one.
  bool counts = false;
  // Tokens before the prompt, and those after it.
  int64_t prefix = 0;
  Prompt tail;
  // The whole sequence.
  int64_t length = 0;
  // Where the rows that a prompt needs begin: those before are of a fixed prefix that nothing is
  // read in, and are computed once.
  int64_t start = 0;
  // The last position before a continuation: what the model predicts there is the next token.
  int64_t last = 0;
  // The tokens that the cross-entropy counts: from `first_counted` to before `end_counted`.
  int64_t first_counted = 0;
  int64_t end_counted = 0;
  std::vector<PlannedRead> reads;
  // A candidate's rows before `full_end` pass all layers; those from there to before `end` pass
  // `tail_depth`; the others are needed by nobody.
  int64_t full_end = 0;
  int64_t end = 0;
  int64_t tail_depth = 0;

  int64_t counted() const { return end_counted - first_counted; }
  // Whether the token at `position` is predicted by its predecessor for the cross-entropy.
  bool Counts(int64_t position) const {
    return counts && position >= first_counted && position < end_counted;
  }
};

// One number of a term: a read, or the difference of two.
struct PlannedValue {
  static constexpr size_t kNone = SIZE_MAX;
  size_t branch = 0;
  // Among the branch's reads.
  size_t plus = 0;
  size_t minus = kNone;
};

struct PlannedTerm {
  // Several where the term is read in a window, or for each token of a continuation.
  std::vector<PlannedValue> values;
};

struct Plan {
  // Of the prompt.
  int64_t tokens = 0;
  std::vector<Branch> branches;
  // At [context * terms of the objective + term].
  std::vector<PlannedTerm> terms;
  size_t contexts = 0;
};

// The reads of one term: of each of its positions `plus` less, if there is one, `minus`; a constant
// is added.
struct TermReads {
  static constexpr size_t kNone = SIZE_MAX;
  size_t plus = 0;
  size_t minus = kNone;
  double constant = 0;
};

// The plan for prompts of `tokens` tokens. `terms`: one a term of the objective, naming `reads`.
// INVALID_ARGUMENT when a prompt of that length has not the positions, or no room between the fixed
// tokens.
absl::StatusOr<Plan> MakePlan(const Objective& objective, const ModelConfig& config,
                              std::span<const Read> reads, std::span<const TermReads> terms,
                              int64_t tokens);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PLAN_H_
