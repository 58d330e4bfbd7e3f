#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/evaluate/device_reads.h"
#include "core/evaluate/packed_pass.h"
#include "core/evaluate/phase_timer.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/recorded.h"
#include "core/evaluate/tensor_head.h"
#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"
#include "core/model/gpu_kernels.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Everything that shapes a pass. Its sizes are rounded up to buckets: at each layer some rows that
// are no longer needed stay, and at the end stand rows of an item that nobody asked for.
struct Shape {
  struct Group {
    ReadGroups::Key key;
    int64_t count = 0;
  };
  int64_t rows = 0;
  // Rows that the head sees; whether they are the first ones in their order.
  int64_t head_rows = 0;
  bool head_is_prefix = true;
  int64_t items = 0;
  // The longest sequence.
  int64_t length = 0;
  // At [i]: how many rows layer i computes.
  std::vector<int64_t> rows_at;
  std::vector<Group> groups;

  std::vector<int64_t> Key() const {
    std::vector<int64_t> key = {rows, head_rows, head_is_prefix, items, length};
    key.insert(key.end(), rows_at.begin(), rows_at.end());
    for (const Group& group : groups) {
      key.insert(key.end(), {group.key.layer, static_cast<int64_t>(group.key.site),
                             static_cast<int64_t>(group.key.kind), group.count});
    }
    return key;
  }
};

// One pass's numbers that differ from pass to pass of one shape; one tensor, so that they go to the
// device together.
struct Inputs {
  std::vector<int64_t> ids, positions, item;
  // Of each row, as AttendedRows'.
  std::vector<int64_t> parent, first, base, split, tail_base;
  std::vector<int64_t> head_rows, labels;
  // Of each item: its parent's place among the parents.
  std::vector<int64_t> parent_of;
  // In the order of Shape::groups; keys' positions are attention's.
  std::vector<int64_t> read_rows, read_which, read_keys;

  at::Tensor On(c10::Device device) const {
    std::vector<int64_t> all;
    for (const auto* part :
         {&ids, &positions, &item, &parent, &first, &base, &split, &tail_base, &head_rows, &labels,
          &parent_of, &read_rows, &read_which, &read_keys}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    return ToDevice(all, device);
  }
};

// Inputs, apart again on the device.
struct DeviceInputs {
  struct Reads {
    at::Tensor rows, which, keys;
  };

  DeviceInputs(const at::Tensor& all, const Shape& shape) {
    int64_t count = 0;
    for (const Shape::Group& group : shape.groups) count += group.count;
    const int64_t rows = shape.rows;
    const auto parts =
        all.split_with_sizes({rows, rows, rows, rows, rows, rows, rows, rows, shape.head_rows,
                              shape.head_rows, shape.items, count, count, count});
    ids = parts[0];
    positions = parts[1];
    item = parts[2];
    attended = {.parent = parts[3],
                .first = parts[4],
                .base = parts[5],
                .split = parts[6],
                .tail_base = parts[7],
                .position = parts[1]};
    head_rows = parts[8];
    labels = parts[9];
    parent_of = parts[10];
    int64_t first = 0;
    for (const Shape::Group& group : shape.groups) {
      reads.push_back({parts[11].narrow(0, first, group.count),
                       parts[12].narrow(0, first, group.count),
                       parts[13].narrow(0, first, group.count)});
      first += group.count;
    }
  }

  at::Tensor ids, positions, item, head_rows, labels, parent_of;
  AttendedRows attended;
  // In the order of Shape::groups.
  std::vector<Reads> reads;
};

// An item's rows attend to its parent's keys before the change and to its own after it.
class ItemAttention final : public RowAttention {
 public:
  // `parents` [parents, layers, 2, length, kv_heads, head_dim].
  ItemAttention(const ModelConfig& config, GpuKernels* kernels, at::Tensor parents,
                const DeviceInputs& inputs)
      : config_(config), kernels_(kernels), parents_(std::move(parents)), inputs_(inputs) {}

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    query_ = query;
    key_ = key;
    const at::Tensor keys_values = parents_.select(1, layer);
    const at::Tensor parent_key = keys_values.select(1, 0);
    const at::Tensor parent_value = keys_values.select(1, 1);
    if (kernels_ != nullptr) {
      return kernels_->Attend(query, key, value, parent_key, parent_value, inputs_.attended);
    }
    // Rows are spread into one padded batch of [items, length]; what a row must not see is after it
    // and falls to the causal mask.
    const int64_t rows = query.size(0);
    const at::Tensor item = inputs_.item.narrow(0, 0, rows);
    const at::Tensor position = inputs_.positions.narrow(0, 0, rows);
    const auto spread = [&](const at::Tensor& own, const at::Tensor& base) {
      at::Tensor all = base;
      all.index_put_({item, position}, own);
      return all.transpose(1, 2);
    };
    const at::Tensor& parent_of = inputs_.parent_of;
    const at::Tensor keys = spread(key, parent_key.index_select(0, parent_of));
    const at::Tensor values = spread(value, parent_value.index_select(0, parent_of));
    const at::Tensor queries = spread(
        query, at::zeros({parent_of.size(0), parents_.size(3), config_.heads, config_.head_dim},
                         query.options()));
    const at::Tensor attended =
        at::scaled_dot_product_attention(queries, keys, values, /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                         /*is_causal=*/true, /*scale=*/{},
                                         /*enable_gqa=*/config_.kv_heads != config_.heads)
            .transpose(1, 2);
    return attended.index({item, position}).reshape({rows, config_.heads * config_.head_dim});
  }

  // After Attend() of `layer`: the softmax weights that reads ask for, [reads].
  at::Tensor Weights(int64_t layer, const DeviceInputs::Reads& reads) const {
    const auto column = [](const at::Tensor& x) { return x.unsqueeze(1); };
    const auto of_rows = [&](const at::Tensor& per_row) {
      return column(per_row.index_select(0, reads.rows));
    };
    const AttendedRows& attended = inputs_.attended;
    const int64_t group = config_.heads / config_.kv_heads;
    const at::Tensor kv_head = column(reads.which.div(group, "floor"));
    const at::Tensor position = at::arange(parents_.size(3), reads.rows.options()).unsqueeze(0);
    const at::Tensor inherited =
        parents_.select(1, layer).select(1, 0).index({of_rows(attended.parent), position, kv_head});
    const at::Tensor own_row =
        at::where(position.lt(of_rows(attended.split)), of_rows(attended.base) + position,
                  of_rows(attended.tail_base) + position)
            .clamp(0, key_.size(0) - 1);
    const at::Tensor keys = at::where(position.lt(of_rows(attended.first)).unsqueeze(2), inherited,
                                      key_.index({own_row, kv_head}));
    const c10::ScalarType wide = AccumulationType(query_.scalar_type());
    const at::Tensor query = query_.index({reads.rows, reads.which}).unsqueeze(1).to(wide);
    const at::Tensor scores =
        ((keys.to(wide) * query).sum(2) / std::sqrt(static_cast<double>(config_.head_dim)))
            .masked_fill(position.gt(of_rows(attended.position)),
                         -std::numeric_limits<double>::infinity());
    return at::softmax(scores, 1).gather(1, column(reads.keys)).squeeze(1);
  }

 private:
  const ModelConfig& config_;
  GpuKernels* const kernels_;
  const at::Tensor parents_;
  const DeviceInputs& inputs_;
  // Of the last layer.
  at::Tensor query_, key_;
};

// A pass on the device. The inputs are Inputs', the parents' keys and values, and
// ReadGroups::Vectors(), three.
class DevicePass {
 public:
  enum Input { kNumbers, kParents, kVectors, kInputs = kVectors + 3 };

  DevicePass(const Model& model, GpuKernels* kernels, const Shape& shape,
             const std::vector<at::Tensor>& inputs)
      : model_(model),
        kernels_(kernels),
        shape_(shape),
        inputs_(inputs),
        wide_(AccumulationType(model.weights().dtype())),
        parts_(inputs[kNumbers], shape),
        attention_(model.config(), kernels, inputs[kParents], parts_),
        values_(shape.groups.size()) {}

  // The surprisals of the head's rows, then what the groups read, one after another.
  std::vector<at::Tensor> Run(EvaluatorCounters& counters) {
    const at::AutoGradMode no_grad(false);
    const Decoder decoder(model_, kernels_);
    const at::Tensor residual = Layers(decoder, counters);
    const PhaseTimer timer(counters.head_seconds);
    std::vector<at::Tensor> results;
    if (shape_.head_rows > 0) {
      const at::Tensor rows = shape_.head_is_prefix ? residual.narrow(0, 0, shape_.head_rows)
                                                    : residual.index_select(0, parts_.head_rows);
      results.push_back(Surprisal(model_, kernels_, decoder.FinalNorm(rows), parts_.labels));
    }
    for (size_t g = 0; g < shape_.groups.size(); ++g) {
      const ReadGroups::Key& key = shape_.groups[g].key;
      if (key.site == Read::Site::kHead) {
        const at::Tensor normed = decoder.FinalNorm(residual.index_select(0, parts_.reads[g].rows));
        const at::Tensor& tokens = parts_.reads[g].which;
        values_[g] = key.kind == Read::Kind::kBestOther
                         ? BestOther(model_, normed, tokens)
                         : ReadLogits(model_, key.kind, normed, tokens, wide_);
      }
      results.push_back(values_[g]);
    }
    return {at::cat(results)};
  }

 private:
  at::Tensor Layers(const Decoder& decoder, EvaluatorCounters& counters) {
    const PhaseTimer timer(counters.layer_seconds);
    LayerTensors tensors;
    for (const Shape::Group& group : shape_.groups) {
      tensors.wants_post_attention |= group.key.site == Read::Site::kPostAttention;
    }
    Rotary rotary = decoder.RotaryAt(parts_.positions);
    at::Tensor residual = decoder.Embed(parts_.ids);
    ReadSite(Read::Site::kResidual, 0, residual);
    for (int64_t layer = 0; layer < model_.config().layers; ++layer) {
      const int64_t rows = shape_.rows_at[layer];
      if (rows == 0) break;
      if (rows < residual.size(0)) {
        residual = residual.narrow(0, 0, rows);
        rotary = rotary.Narrow(rows);
      }
      residual = decoder.Layer(layer, residual, rotary, attention_, tensors);
      ReadSite(Read::Site::kHeads, layer, tensors.heads);
      ReadSite(Read::Site::kPostAttention, layer, tensors.post_attention);
      ReadSite(Read::Site::kNeurons, layer, tensors.neurons);
      ReadSite(Read::Site::kResidual, layer + 1, residual);
    }
    return residual;
  }

  void ReadSite(Read::Site site, int64_t layer, const at::Tensor& x) {
    for (size_t g = 0; g < shape_.groups.size(); ++g) {
      const ReadGroups::Key& key = shape_.groups[g].key;
      if (key.site != site || key.layer != layer) continue;
      const DeviceInputs::Reads& reads = parts_.reads[g];
      values_[g] = key.kind == Read::Kind::kAttention
                       ? attention_.Weights(layer, reads)
                       : ReadRows(key.kind, x, reads.rows, reads.which,
                                  inputs_[kVectors + ReadGroups::WidthOf(site)], wide_);
    }
  }

  const Model& model_;
  GpuKernels* const kernels_;
  const Shape& shape_;
  const std::vector<at::Tensor>& inputs_;
  const c10::ScalarType wide_;
  const DeviceInputs parts_;
  ItemAttention attention_;
  std::vector<at::Tensor> values_;
};

class TensorPass final : public PackedPass {
 public:
  TensorPass(const Model& model, const GpuHelp& help, const PassBuckets& buckets)
      : model_(model), kernels_(help.kernels), recorded_(help.recorder), buckets_(buckets) {}

  PassResult Run(std::span<const PassItem> items, std::span<const Change> changes,
                 const Layout& layout, size_t numbers, EvaluatorCounters& counters) override {
    const at::AutoGradMode no_grad(false);
    PassResult result;
    result.numbers.resize(numbers);
    std::vector<at::Tensor> parts;
    // Where each of the pass's values goes.
    std::vector<size_t> number_of;
    if (!layout.ids.empty()) {
      parts.push_back(RunRows(items, layout, number_of, counters));
    }
    std::vector<size_t> change_of;
    parts.push_back(Changes(changes, change_of));

    // Waits for the device, for the first time.
    const PhaseTimer timer(counters.head_seconds);
    const at::Tensor host = at::cat(parts).to(at::kCPU, at::kDouble).contiguous();
    const double* values = host.const_data_ptr<double>();
    for (size_t i = 0; i < number_of.size(); ++i) {
      if (number_of[i] < numbers) result.numbers[number_of[i]] = values[i];
    }
    result.changes.resize(changes.size());
    const double* change = values + number_of.size();
    for (size_t i = 0; i < change_of.size(); ++i) result.changes[change_of[i]] = change[i];
    return result;
  }

 private:
  c10::Device device() const { return model_.weights().device(); }

  at::Tensor RunRows(std::span<const PassItem> items, const Layout& layout,
                     std::vector<size_t>& number_of, EvaluatorCounters& counters) {
    Shape shape;
    Inputs inputs;
    FillRows(items, layout, shape, inputs);
    const at::Tensor parents = StackParents(items, layout, shape, inputs);
    number_of = layout.surprisal_numbers;
    number_of.resize(shape.head_rows, SIZE_MAX);
    std::vector<at::Tensor> tensors = {at::Tensor(), parents};
    FillReads(items, layout, shape, inputs, number_of, tensors);
    tensors[DevicePass::kNumbers] = inputs.On(device());
    return recorded_.Call(shape.Key(), tensors,
                          [&model = model_, kernels = kernels_, shape,
                           &counters](const std::vector<at::Tensor>& all) {
                            return DevicePass(model, kernels, shape, all).Run(counters);
                          })[0];
  }

  void FillRows(std::span<const PassItem> items, const Layout& layout, Shape& shape,
                Inputs& inputs) const {
    inputs.ids = layout.ids;
    inputs.positions = layout.positions;
    inputs.item = layout.item;
    inputs.head_rows = layout.head_rows;
    inputs.labels = layout.labels;
    shape.rows = RoundUp(std::ssize(layout.ids), buckets_.rows);
    shape.head_rows = RoundUp(std::ssize(layout.head_rows), buckets_.rows);
    shape.head_is_prefix = layout.HeadIsPrefix();
    inputs.ids.resize(shape.rows, 0);
    inputs.positions.resize(shape.rows, 0);
    inputs.item.resize(shape.rows, std::ssize(items));
    inputs.head_rows.resize(shape.head_rows, 0);
    inputs.labels.resize(shape.head_rows, 0);
    for (const int64_t needed : layout.rows_at) {
      shape.rows_at.push_back(RoundUp(needed, buckets_.rows));
    }
  }

  void FillReads(std::span<const PassItem> items, const Layout& layout, Shape& shape,
                 Inputs& inputs, std::vector<size_t>& number_of,
                 std::vector<at::Tensor>& tensors) const {
    ReadGroups groups;
    for (size_t r = 0; r < layout.reads.size(); ++r) {
      const Layout::RowRead& read = layout.reads[r];
      groups.Add(*items[read.item].target, *read.read, read.row, r);
    }
    groups.Pad(buckets_.candidates);
    for (const auto& [key, group] : groups.groups()) {
      shape.groups.push_back({key, std::ssize(group.rows)});
      inputs.read_rows.insert(inputs.read_rows.end(), group.rows.begin(), group.rows.end());
      inputs.read_which.insert(inputs.read_which.end(), group.which.begin(), group.which.end());
      for (const size_t r : group.results) {
        inputs.read_keys.push_back(layout.reads[r].key);
        number_of.push_back(layout.reads[r].number);
      }
      inputs.read_keys.resize(inputs.read_rows.size(), 0);
      number_of.resize(shape.head_rows + inputs.read_rows.size(), SIZE_MAX);
    }
    for (const at::Tensor& vectors : groups.Vectors()) {
      tensors.push_back(vectors.defined() ? vectors : at::empty({0}, wide_options()));
    }
  }

  at::TensorOptions wide_options() const {
    return at::TensorOptions(AccumulationType(model_.weights().dtype())).device(device());
  }

  // [parents, layers, 2, length, kv_heads, head_dim]: with what stands before their own rows.
  at::Tensor StackParents(std::span<const PassItem> items, const Layout& layout, Shape& shape,
                          Inputs& inputs) const {
    std::map<const PreparedBranch*, int64_t> index;
    std::vector<const PreparedBranch*> parents;
    const auto length_of = [](const PreparedBranch& parent) {
      return parent.keys_values.size(2) +
             (parent.prefix == nullptr ? 0 : std::ssize(parent.prefix->tokens));
    };
    for (const PassItem& item : items) {
      const auto [entry, is_new] = index.try_emplace(item.parent, std::ssize(parents));
      if (is_new) parents.push_back(item.parent);
      inputs.parent_of.push_back(entry->second);
      shape.length = std::max({shape.length, length_of(*item.parent), item.branch->end});
    }
    for (size_t row = 0; row < layout.ids.size(); ++row) {
      const int64_t i = layout.item[row];
      const Layout::Item& place = layout.items[i];
      const int64_t split = items[i].first + place.count;
      inputs.parent.push_back(inputs.parent_of[i]);
      inputs.first.push_back(items[i].first);
      inputs.base.push_back(place.row - items[i].first);
      inputs.split.push_back(split);
      inputs.tail_base.push_back(place.tail_row - split);
    }
    // A row that nobody asked for stands first in its sequence and sees itself alone.
    for (auto* of_row :
         {&inputs.parent, &inputs.first, &inputs.base, &inputs.split, &inputs.tail_base}) {
      of_row->resize(shape.rows, 0);
    }
    const bool has_spare = inputs.item.back() == std::ssize(items);
    shape.items = RoundUp(std::ssize(items) + has_spare, buckets_.candidates);
    inputs.parent_of.resize(shape.items, 0);
    std::vector<at::Tensor> padded;
    for (const PreparedBranch* parent : parents) {
      const at::Tensor whole = parent->prefix == nullptr
                                   ? parent->keys_values
                                   : at::cat({parent->prefix->keys_values, parent->keys_values}, 2);
      const int64_t missing = shape.length - whole.size(2);
      padded.push_back(missing == 0 ? whole : at::constant_pad_nd(whole, {0, 0, 0, 0, 0, missing}));
    }
    padded.resize(RoundUp(std::ssize(padded), buckets_.parents), padded[0]);
    return at::stack(padded);
  }

  // -log p of the changes, in the order of `change_of`.
  at::Tensor Changes(std::span<const Change> changes, std::vector<size_t>& change_of) const {
    std::map<const PreparedBranch*, std::vector<size_t>> by_parent;
    for (size_t c = 0; c < changes.size(); ++c) by_parent[changes[c].parent].push_back(c);
    std::vector<int64_t> places;
    for (const auto& [parent, which] : by_parent) {
      for (const size_t c : which) {
        places.push_back(changes[c].row * parent->log_probs.size(1) + changes[c].token);
        change_of.push_back(c);
      }
    }
    const at::Tensor all = ToDevice(places, device());
    std::vector<at::Tensor> parts;
    int64_t first = 0;
    for (const auto& [parent, which] : by_parent) {
      parts.push_back(parent->log_probs.view(-1)
                          .index_select(0, all.narrow(0, first, std::ssize(which)))
                          .neg_());
      first += std::ssize(which);
    }
    return parts.empty() ? at::empty({0}, wide_options()) : at::cat(parts);
  }

  const Model& model_;
  GpuKernels* const kernels_;
  Recorded recorded_;
  const PassBuckets buckets_;
};

}  // namespace

std::unique_ptr<PackedPass> MakeTensorPass(const Model& model, const GpuHelp& help,
                                           const PassBuckets& buckets) {
  return std::make_unique<TensorPass>(model, help, buckets);
}

}  // namespace epo
