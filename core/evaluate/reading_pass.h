// The model's part of reading prompts: forward over whole sequences, and back to their embedded
// tokens. Includes torch.
#ifndef EPO_CORE_EVALUATE_READING_PASS_H_
#define EPO_CORE_EVALUATE_READING_PASS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "core/evaluate/device_reads.h"
#include "core/evaluate/fixed_tokens.h"
#include "core/model/decoder.h"
#include "core/model/gpu_kernels.h"
#include "core/model/model.h"

namespace epo {

class ReadingAttention;

// Everything that shapes a pass.
struct ReadingShape {
  // Sequences one after another, of one length of rows, behind one prefix.
  struct Stretch {
    int64_t sequences = 0;
    int64_t length = 0;
    // Among the pass's prefixes; -1: none.
    int64_t prefix = -1;
    int64_t prefix_length = 0;
  };
  struct Group {
    ReadGroups::Key key;
    int64_t count = 0;
  };
  // A read of attention; its rows are part of the shape.
  struct AttentionRead {
    int64_t layer = 0;
    int64_t head = 0;
    // The sequence's first row, the query's, and the key's position in the sequence, prefix
    // included.
    int64_t first_row = 0;
    int64_t row = 0;
    int64_t key = 0;
    int64_t prefix = -1;
  };
  std::vector<Stretch> stretches;
  int64_t rows = 0;
  // Rows whose next token is asked for; whether these are all rows in their order.
  int64_t head_rows = 0;
  bool head_is_all = true;
  // Sequences whose most probable next token is asked for.
  int64_t nexts = 0;
  // Rows whose logits or surprisals are read for a target, and these surprisals.
  int64_t target_rows = 0;
  int64_t surprisals = 0;
  std::vector<Group> groups;
  std::vector<AttentionRead> attention;
  bool gradients = false;
  // 1, or 2 for one copy of the sequences for each gradient.
  int64_t copies = 1;

  std::vector<int64_t> Key() const;
};

// One pass's numbers that differ from pass to pass of one shape; one tensor, so that they go to the
// device together.
struct ReadingInputs {
  std::vector<int64_t> ids, positions;
  // [head_rows]: the rows, and the tokens that follow them.
  std::vector<int64_t> head_rows, labels;
  // [nexts], [surprisals]: among the head's rows.
  std::vector<int64_t> nexts, surprisals;
  // [target_rows], and [surprisals] among them.
  std::vector<int64_t> target_rows, surprisal_targets;
  // [reads of all groups], in the groups' order; rows of the head's groups are among the target's.
  std::vector<int64_t> read_rows, read_which;

  at::Tensor On(c10::Device device) const;
};

// Forward(), and after it once Backward().
class ReadingPass {
 public:
  // What `inputs` holds, after each other; vectors and prefixes that are not there are empty
  // tensors.
  enum Input {
    kNumbers,
    // [head_rows]: each row's share in its prompt's cross-entropy.
    kLabelWeights,
    // ReadGroups::Vectors(), three.
    kVectors,
    // [layers, 2, tokens, kv_heads, head_dim] each, as many as there are.
    kPrefixes = kVectors + 3,
  };

  // All must outlive the pass. `kernels` may be null.
  ReadingPass(const Model& model, GpuKernels* kernels, const ReadingShape& shape,
              const std::vector<at::Tensor>& inputs);
  ~ReadingPass();

  void Forward();

  // float64: of each head row -log p(label), of each next the most probable token, of each read of
  // the groups its value, then those of attention.
  const at::Tensor& for_the_host() const { return for_the_host_; }
  // [layers, 2, rows, kv_heads, head_dim].
  at::Tensor KeysValues() const;
  // [head_rows, vocab].
  const at::Tensor& log_probs() const { return log_probs_; }

  // The gradients with respect to the embedded tokens, [rows, hidden]: of the sum of the reads (in
  // for_the_host()'s order) times `read_weights` plus the surprisals times `surprisal_weights`; and
  // of the cross-entropies.
  struct Gradients {
    at::Tensor target;
    at::Tensor cross_entropy;
  };
  Gradients Backward(const at::Tensor& read_weights, const at::Tensor& surprisal_weights);

 private:
  void ReadLayer(int64_t layer, const LayerTensors& tensors, const at::Tensor& residual);
  void ReadGroup(ReadGroups::Key key, const at::Tensor& x);
  at::Tensor HeadGradient(const at::Tensor& log_probs, const at::Tensor& labels,
                          const at::Tensor& weights) const;

  const Model& model_;
  GpuKernels* const kernels_;
  const ReadingShape& shape_;
  const std::vector<at::Tensor>& inputs_;
  const c10::ScalarType wide_;
  std::unique_ptr<ReadingAttention> attention_;
  // Numbers, apart again.
  at::Tensor ids_, positions_, head_rows_, labels_, nexts_, surprisals_, target_rows_,
      surprisal_targets_;
  std::vector<at::Tensor> read_rows_, read_which_;

  at::Tensor embedded_;
  // The values of each group, by its place.
  std::vector<at::Tensor> values_;
  // What the head reads: for the cross-entropy, and for surprisals of a target.
  at::Tensor head_normed_, surprisal_normed_;
  at::Tensor log_probs_;
  at::Tensor for_the_host_;
  // All groups' values, then attention's.
  at::Tensor all_values_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_READING_PASS_H_
