// What a job maximises: numbers read inside the model for a prompt, combined into the paper's f(t),
// and the fixed texts around the prompt. Plain data; core/evaluate/target.h makes it runnable.
#ifndef EPO_CORE_OBJECTIVE_OBJECTIVE_H_
#define EPO_CORE_OBJECTIVE_OBJECTIVE_H_

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "core/base/types.h"

namespace epo {

// Values of a vector, float32. Shared, since many jobs may name one that was uploaded once.
using VectorValues = std::shared_ptr<const std::vector<float>>;

// Where the residual stream is read in a block.
enum class ResidualPoint {
  kPreBlock,
  // After the attention's output was added. In a parallel block (Phi), whose MLP reads the same
  // input as its attention, the block's input plus the attention's output.
  kPostAttention,
  kPostBlock,
};

// The activation of an MLP neuron: an input of the second MLP matrix.
struct NeuronTerm {
  int layer = 0;
  int neuron = 0;
  friend bool operator==(const NeuronTerm&, const NeuronTerm&) = default;
};

// The residual stream h, [hidden], dotted with a vector.
struct DirectionTerm {
  int layer = 0;
  ResidualPoint point = ResidualPoint::kPreBlock;
  VectorValues vector;
  // Whether h is first standardised: its mean removed, divided by its standard deviation (of hidden
  // - 1 degrees of freedom, as torch's and the reference implementation's).
  bool standardise = false;
};

// A feature of a sparse autoencoder over the residual stream: encoder . (h - decoder_bias) + bias.
struct FeatureTerm {
  enum class Activation {
    kNone,
    kRelu,
    // z where z > threshold, else 0.
    kJumpRelu,
  };
  int layer = 0;
  ResidualPoint point = ResidualPoint::kPostBlock;
  // [hidden].
  VectorValues encoder;
  double bias = 0;
  // [hidden], or null: nothing is subtracted.
  VectorValues decoder_bias;
  Activation activation = Activation::kNone;
  double threshold = 0;
};

// The attention that a head pays: the softmax weight of the key at one position for the query at
// the term's position.
struct AttentionTerm {
  int layer = 0;
  int head = 0;
  // In the term's frame, as Position's `first`.
  int key = 0;
};

// What an attention head or the MLP adds to the residual stream, dotted with a vector. A head's
// output is its part of the attention's output matrix, without that matrix's bias.
struct OutputTerm {
  int layer = 0;
  // Absent: the MLP.
  std::optional<int> head;
  // [hidden].
  VectorValues vector;
};

// The logit of a token as the next one.
struct LogitTerm {
  TokenId token = 0;
};

// The logit of a token minus another's, or minus the greatest of all others.
struct LogitDifferenceTerm {
  TokenId token = 0;
  std::optional<TokenId> other;
};

// log p(tokens | the whole sequence before them), in nats. Has no position.
struct ContinuationTerm {
  Prompt tokens;
};

// The cosine of the angle between the residual stream and a vector or another text's residual
// stream at the same point, read at that text's last token.
struct CosineTerm {
  int layer = 0;
  ResidualPoint point = ResidualPoint::kPreBlock;
  // [hidden]; null when `text` is given.
  VectorValues vector;
  Prompt text;
};

// The tokens at which a term is read.
struct Position {
  enum class Frame {
    // Prefix, prompt and suffix.
    kSequence,
    // The optimised tokens.
    kPrompt,
  };
  enum class Reduce { kOne, kMax, kMean };
  Frame frame = Frame::kSequence;
  Reduce reduce = Reduce::kOne;
  // From 0; a negative one counts from the frame's end, -1 being its last token. With kOne the
  // position, else the first and the last one of the window.
  int first = -1;
  int last = -1;

  friend bool operator==(const Position&, const Position&) = default;
};

struct Term {
  std::variant<NeuronTerm, DirectionTerm, FeatureTerm, AttentionTerm, OutputTerm, LogitTerm,
               LogitDifferenceTerm, ContinuationTerm, CosineTerm>
      kind;
  Position position;
  double weight = 1;
  // The term is divided by this; absent: by its standard deviation over random prompts, which the
  // run measures before its first step.
  std::optional<double> scale = 1;
};

// The fixed tokens around the optimised ones.
struct Context {
  Prompt prefix;
  Prompt suffix;
};

// f(t) = sign * combine over terms of weight * term / scale, taken in each context, then over the
// contexts.
struct Objective {
  enum class Combine {
    kSum,
    // -temperature * log(mean over terms of exp(-value / temperature)): near the least of them.
    kSoftMin,
  };
  enum class Across { kMean, kMin };

  // At least one.
  std::vector<Term> terms;
  Combine combine = Combine::kSum;
  double temperature = 1;
  // The search maximises the combination's negative.
  bool minimize = false;
  // None is one context without fixed tokens.
  std::vector<Context> contexts;
  Across across = Across::kMean;
  // Whether the cross-entropy also counts the suffix. It always counts every optimised token that
  // has something before it.
  bool fluency_over_suffix = false;
};

// Maximises one neuron at the last token.
Objective NeuronObjective(int layer, int neuron);

}  // namespace epo

#endif  // EPO_CORE_OBJECTIVE_OBJECTIVE_H_
