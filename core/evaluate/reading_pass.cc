#include "core/evaluate/reading_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <utility>

#include "core/evaluate/tensors.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {

// Causal attention within each sequence and to its prefix; sequences stand one after another in the
// rows, and again for a second copy. Keeps every layer's keys and values of the first.
class ReadingAttention final : public RowAttention {
 public:
  ReadingAttention(const ModelConfig& config, const ReadingShape& shape,
                   std::span<const at::Tensor> prefixes)
      : config_(config), shape_(shape), prefixes_(prefixes) {
    keys_.reserve(config.layers);
    values_.reserve(config.layers);
  }

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    keys_.push_back(key.detach().narrow(0, 0, key.size(0) / shape_.copies));
    values_.push_back(value.detach().narrow(0, 0, value.size(0) / shape_.copies));
    for (const ReadingShape::AttentionRead& read : shape_.attention) {
      if (read.layer == layer) read_.push_back(Weight(read, query, key));
    }
    std::vector<at::Tensor> outputs;
    int64_t row = 0;
    for (const ReadingShape::Stretch& stretch : Stretches()) {
      const int64_t rows = stretch.sequences * stretch.length;
      const auto batch = [&](const at::Tensor& x) {
        return x.narrow(0, row, rows)
            .view({stretch.sequences, stretch.length, x.size(1), x.size(2)})
            .transpose(1, 2);
      };
      at::Tensor keys = batch(key);
      at::Tensor values = batch(value);
      at::Tensor mask;
      if (stretch.prefix >= 0) {
        const auto behind = [&](int64_t which, const at::Tensor& own) {
          const at::Tensor prefix = prefixes_[stretch.prefix][layer][which].transpose(0, 1);
          return at::cat({prefix.unsqueeze(0).expand({stretch.sequences, -1, -1, -1}), own}, 2);
        };
        keys = behind(0, keys);
        values = behind(1, values);
        mask = at::ones({stretch.length, stretch.prefix_length + stretch.length},
                        query.options().dtype(at::kBool))
                   .tril(stretch.prefix_length);
      }
      const at::Tensor attended = at::scaled_dot_product_attention(
          batch(query), keys, values, mask.defined() ? std::optional(mask) : std::nullopt,
          /*dropout_p=*/0.0, /*is_causal=*/!mask.defined(), /*scale=*/{},
          /*enable_gqa=*/config_.kv_heads != config_.heads);
      outputs.push_back(attended.transpose(1, 2).reshape({rows, config_.heads * config_.head_dim}));
      row += rows;
    }
    return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
  }

  // [layers, 2, rows, kv_heads, head_dim], of one copy.
  at::Tensor KeysValues() const { return at::stack({at::stack(keys_), at::stack(values_)}, 1); }

  // The weights read so far, in the order of layers, then of the shape; a number each.
  const std::vector<at::Tensor>& read() const { return read_; }

 private:
  // The first copy's is read.
  at::Tensor Weight(const ReadingShape::AttentionRead& read, const at::Tensor& query,
                    const at::Tensor& key) const {
    const int64_t kv_head = read.head / (config_.heads / config_.kv_heads);
    at::Tensor keys =
        key.narrow(0, read.first_row, read.row - read.first_row + 1).select(1, kv_head);
    if (read.prefix >= 0) {
      keys = at::cat({prefixes_[read.prefix][read.layer][0].select(1, kv_head), keys});
    }
    const at::Tensor scores =
        at::mv(keys, query[read.row][read.head]) / std::sqrt(static_cast<double>(config_.head_dim));
    return at::softmax(scores, 0, AccumulationType(query.scalar_type()))[read.key];
  }

  // Copies of one stretch are another stretch of the same length.
  std::vector<ReadingShape::Stretch> Stretches() const {
    std::vector<ReadingShape::Stretch> all = shape_.stretches;
    if (shape_.copies == 1) return all;
    if (all.size() == 1) {
      all[0].sequences *= 2;
      return all;
    }
    all.insert(all.end(), shape_.stretches.begin(), shape_.stretches.end());
    return all;
  }

  const ModelConfig& config_;
  const ReadingShape& shape_;
  const std::span<const at::Tensor> prefixes_;
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
  std::vector<at::Tensor> read_;
};

std::vector<int64_t> ReadingShape::Key() const {
  std::vector<int64_t> key = {gradients,         copies,      rows,
                              head_rows,         nexts,       surprisals,
                              target_rows,       head_is_all, std::ssize(stretches),
                              std::ssize(groups)};
  for (const Stretch& stretch : stretches) {
    key.insert(key.end(),
               {stretch.sequences, stretch.length, stretch.prefix, stretch.prefix_length});
  }
  for (const Group& group : groups) {
    key.insert(key.end(), {group.key.layer, static_cast<int64_t>(group.key.site),
                           static_cast<int64_t>(group.key.kind), group.count});
  }
  for (const AttentionRead& read : attention) {
    key.insert(key.end(), {read.layer, read.head, read.first_row, read.row, read.key, read.prefix});
  }
  return key;
}

at::Tensor ReadingInputs::On(c10::Device device) const {
  std::vector<int64_t> all;
  for (const auto* part : {&ids, &positions, &head_rows, &labels, &nexts, &surprisals, &target_rows,
                           &surprisal_targets, &read_rows, &read_which}) {
    all.insert(all.end(), part->begin(), part->end());
  }
  return ToDevice(all, device);
}

ReadingPass::ReadingPass(const Model& model, GpuKernels* kernels, const ReadingShape& shape,
                         const std::vector<at::Tensor>& inputs)
    : model_(model),
      kernels_(kernels),
      shape_(shape),
      inputs_(inputs),
      wide_(AccumulationType(model.weights().dtype())),
      attention_(std::make_unique<ReadingAttention>(model.config(), shape,
                                                    std::span(inputs).subspan(kPrefixes))) {
  int64_t reads = 0;
  for (const ReadingShape::Group& group : shape.groups) reads += group.count;
  const auto parts = inputs[kNumbers].split_with_sizes(
      {shape.rows, shape.rows, shape.head_rows, shape.head_rows, shape.nexts, shape.surprisals,
       shape.target_rows, shape.surprisals, reads, reads});
  ids_ = parts[0];
  positions_ = parts[1];
  head_rows_ = parts[2];
  labels_ = parts[3];
  nexts_ = parts[4];
  surprisals_ = parts[5];
  target_rows_ = parts[6];
  surprisal_targets_ = parts[7];
  int64_t first = 0;
  for (const ReadingShape::Group& group : shape.groups) {
    read_rows_.push_back(parts[8].narrow(0, first, group.count));
    read_which_.push_back(parts[9].narrow(0, first, group.count));
    first += group.count;
  }
  values_.resize(shape.groups.size());
}

ReadingPass::~ReadingPass() = default;

at::Tensor ReadingPass::KeysValues() const { return attention_->KeysValues(); }

void ReadingPass::ReadGroup(ReadGroups::Key key, const at::Tensor& x) {
  for (size_t g = 0; g < shape_.groups.size(); ++g) {
    if (shape_.groups[g].key != key) continue;
    values_[g] = ReadRows(key.kind, x, read_rows_[g], read_which_[g],
                          inputs_[kVectors + ReadGroups::WidthOf(key.site)], wide_);
  }
}

void ReadingPass::ReadLayer(int64_t layer, const LayerTensors& tensors,
                            const at::Tensor& residual) {
  for (const ReadingShape::Group& group : shape_.groups) {
    const ReadGroups::Key& key = group.key;
    if (key.site == Read::Site::kResidual && key.layer == layer + 1) ReadGroup(key, residual);
    if (key.layer != layer) continue;
    if (key.site == Read::Site::kHeads) ReadGroup(key, tensors.heads);
    if (key.site == Read::Site::kPostAttention) ReadGroup(key, tensors.post_attention);
    if (key.site == Read::Site::kNeurons) ReadGroup(key, tensors.neurons);
  }
}

void ReadingPass::Forward() {
  const at::AutoGradMode grad_mode(shape_.gradients);
  const Decoder decoder(model_, kernels_);
  const auto copied = [&](const at::Tensor& x) {
    return shape_.copies == 1 ? x : x.repeat(shape_.copies);
  };
  embedded_ = decoder.Embed(copied(ids_)).set_requires_grad(shape_.gradients);
  const Rotary rotary = decoder.RotaryAt(copied(positions_));
  LayerTensors tensors;
  for (const ReadingShape::Group& group : shape_.groups) {
    tensors.wants_post_attention |= group.key.site == Read::Site::kPostAttention;
  }
  at::Tensor residual = embedded_;
  ReadLayer(-1, tensors, residual);
  for (int64_t layer = 0; layer < model_.config().layers; ++layer) {
    residual = decoder.Layer(layer, residual, rotary, *attention_, tensors);
    ReadLayer(layer, tensors, residual);
  }
  // Targets are read from the first copy, the cross-entropy from the last.
  const auto normed = [&](int64_t copy, const at::Tensor& rows) {
    const at::Tensor of = residual.narrow(0, copy * shape_.rows, shape_.rows);
    return decoder.FinalNorm(rows.defined() ? of.index_select(0, rows) : of);
  };
  head_normed_ = normed(shape_.copies - 1, shape_.head_is_all ? at::Tensor() : head_rows_);
  if (shape_.target_rows > 0) {
    // Once for all that is read from a row: RMSNorm rounds its gradient to float32, as
    // transformers'.
    const at::Tensor target_normed = normed(0, target_rows_);
    for (size_t g = 0; g < shape_.groups.size(); ++g) {
      const ReadGroups::Key& key = shape_.groups[g].key;
      if (key.site != Read::Site::kHead) continue;
      values_[g] = ReadLogits(model_, key.kind, target_normed.index_select(0, read_rows_[g]),
                              read_which_[g], wide_);
    }
    if (shape_.surprisals > 0) {
      surprisal_normed_ = target_normed.index_select(0, surprisal_targets_);
    }
  }

  // From here on the head is differentiated by hand: its gradient is (p - onehot(label)) W, and the
  // log-probabilities that p comes from are kept anyway.
  log_probs_ = at::log_softmax(decoder.Logits(head_normed_.detach()), -1, wide_);
  std::vector<at::Tensor> values;
  for (const at::Tensor& value : values_) values.push_back(value);
  for (const at::Tensor& weight : attention_->read()) {
    values.push_back(weight.to(wide_).unsqueeze(0));
  }
  if (!values.empty()) all_values_ = at::cat(values);

  const at::Tensor surprisal = log_probs_.gather(1, labels_.unsqueeze(1)).squeeze(1).neg();
  std::vector<at::Tensor> host = {surprisal.to(at::kDouble),
                                  log_probs_.index_select(0, nexts_).argmax(-1).to(at::kDouble)};
  if (all_values_.defined()) host.push_back(all_values_.detach().to(at::kDouble));
  for_the_host_ = at::cat(host).detach();
}

at::Tensor ReadingPass::HeadGradient(const at::Tensor& log_probs, const at::Tensor& labels,
                                     const at::Tensor& weights) const {
  const at::AutoGradMode no_grad(false);
  const at::Tensor column = labels.unsqueeze(1);
  at::Tensor residue = log_probs.exp();
  residue.scatter_add_(1, column, at::full_like(column, -1.0, residue.options()));
  residue.mul_(weights.unsqueeze(1));
  return ProductBackward(residue.to(model_.weights().compute_dtype()), model_.weights().head.weight)
      .to(head_normed_.scalar_type());
}

ReadingPass::Gradients ReadingPass::Backward(const at::Tensor& read_weights,
                                             const at::Tensor& surprisal_weights) {
  // One backward serves all sequences: none sees another's rows.
  const auto gradient = [&](const std::vector<at::Tensor>& of, const std::vector<at::Tensor>& from,
                            bool again) {
    return torch::autograd::grad(of, {embedded_}, from, /*retain_graph=*/again)[0];
  };
  std::vector<at::Tensor> of, from;
  if (all_values_.defined()) {
    of.push_back(all_values_);
    from.push_back(read_weights.to(wide_));
  }
  if (surprisal_normed_.defined()) {
    of.push_back(surprisal_normed_);
    from.push_back(HeadGradient(log_probs_.index_select(0, surprisals_),
                                labels_.index_select(0, surprisals_), surprisal_weights.to(wide_)));
  }
  const at::Tensor head_gradient = HeadGradient(log_probs_, labels_, inputs_[kLabelWeights]);
  if (shape_.copies == 1) {
    Gradients gradients;
    gradients.target = gradient(of, from, /*again=*/true);
    gradients.cross_entropy = gradient({head_normed_}, {head_gradient}, /*again=*/false);
    return gradients;
  }
  of.push_back(head_normed_);
  from.push_back(head_gradient);
  const at::Tensor both = gradient(of, from, /*again=*/false);
  return {both.narrow(0, 0, shape_.rows), both.narrow(0, shape_.rows, shape_.rows)};
}

}  // namespace epo
