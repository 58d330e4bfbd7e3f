#include "core/evaluate/prepare.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "core/evaluate/flops.h"
#include "core/evaluate/layout.h"
#include "core/evaluate/reading_pass.h"
#include "core/evaluate/tensors.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// A prompt in one branch of its target's plan: a sequence of the pass.
struct Sequence {
  size_t request = 0;
  size_t branch_index = 0;
  const Branch* branch = nullptr;
  std::shared_ptr<const SharedPrefix> prefix;
  // Where its rows stand, and its head rows.
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_head_row = 0;
  // Of each head row: its position in the sequence.
  std::vector<int64_t> head_positions;
  // Of each read: where its number stands among for_the_host()'s.
  std::vector<size_t> number_of_read;
  // Among the pass's.
  int64_t next = -1;

  int64_t RowOf(int64_t position) const { return first_row + position - branch->start; }
  // The head row that predicts the token at `position`.
  int64_t HeadRowBefore(int64_t position) const {
    const auto found = std::find(head_positions.begin(), head_positions.end(), position - 1);
    return first_head_row + (found - head_positions.begin());
  }
  // Whether the first counted token is predicted by the last row of the prefix, which is not of the
  // pass.
  bool PrefixPredicts() const {
    return branch->counted() > 0 && branch->first_counted == branch->start && prefix != nullptr;
  }
};

TokenId TokenAt(const Prompt& prompt, const ModelTarget& target, const Branch& branch,
                int64_t position) {
  if (position < branch.prefix) return target.objective().contexts[branch.context].prefix[position];
  const int64_t i = position - branch.prefix;
  if (i < std::ssize(prompt)) return prompt[i];
  return branch.tail[i - std::ssize(prompt)];
}

const ModelTarget& TargetOf(const PrepareRequest& request) {
  return static_cast<const ModelTarget&>(*request.target);
}

const Plan& PlanOf(const PrepareRequest& request) {
  return TargetOf(request).PlanFor(std::ssize(request.prompt));
}

// A pass over `requests`, as the host sees it.
class HostPass {
 public:
  HostPass(std::span<const PrepareRequest> requests, std::vector<Sequence> sequences,
           int64_t copies)
      : requests_(requests), sequences_(std::move(sequences)) {
    shape_.gradients = requests[0].gradients;
    shape_.copies = shape_.gradients ? copies : 1;
    for (Sequence& sequence : sequences_) {
      PlaceRows(sequence);
      PlaceHead(sequence);
    }
    shape_.rows = std::ssize(numbers_.ids);
    shape_.head_rows = std::ssize(numbers_.head_rows);
    shape_.head_is_all = shape_.head_rows == shape_.rows;
    shape_.nexts = std::ssize(numbers_.nexts);
    PlaceReads();
  }

  const ReadingShape& shape() const { return shape_; }
  const std::vector<Sequence>& sequences() const { return sequences_; }

  std::vector<at::Tensor> Inputs(const Model& model) const {
    const c10::Device device = model.weights().device();
    const c10::ScalarType wide = AccumulationType(model.weights().dtype());
    std::vector<at::Tensor> inputs = {numbers_.On(device),
                                      ToDevice(label_weights_, device).to(wide)};
    for (const at::Tensor& vectors : groups_.Vectors()) {
      inputs.push_back(vectors.defined() ? vectors : at::empty({0}, inputs[1].options()));
    }
    for (const auto& prefix : prefixes_) inputs.push_back(prefix->keys_values);
    return inputs;
  }

  // What a request has read. `values` is for_the_host()'s.
  BranchNumbers Numbers(size_t request, const double* values) const {
    BranchNumbers numbers;
    for (const Sequence& sequence : sequences_) {
      if (sequence.request != request) continue;
      std::vector<double>& reads = numbers.emplace_back();
      for (const size_t place : sequence.number_of_read) reads.push_back(values[place]);
    }
    return numbers;
  }

  // Of each number that is read for a target, its weight in the sum that is differentiated: f of
  // each request.
  struct Weights {
    std::vector<double> reads;
    std::vector<double> surprisals;
  };
  Weights NoWeights() const {
    return {std::vector<double>(reads_, 0.0), std::vector<double>(numbers_.surprisals.size(), 0.0)};
  }
  void AddWeights(size_t request, const BranchNumbers& gradient, Weights& weights) const {
    const auto first_read = static_cast<size_t>(shape_.head_rows + shape_.nexts);
    for (const Sequence& sequence : sequences_) {
      if (sequence.request != request) continue;
      for (size_t r = 0; r < sequence.number_of_read.size(); ++r) {
        const size_t place = sequence.number_of_read[r];
        const double weight = gradient[sequence.branch_index][r];
        if (place >= first_read) {
          weights.reads[place - first_read] += weight;
        } else {
          weights.surprisals[surprisal_of_head_row_.at(static_cast<int64_t>(place))] += weight;
        }
      }
    }
  }

 private:
  void PlaceRows(Sequence& sequence) {
    const PrepareRequest& request = requests_[sequence.request];
    sequence.first_row = std::ssize(numbers_.ids);
    sequence.rows = sequence.branch->length - sequence.branch->start;
    int64_t prefix = -1;
    if (sequence.prefix != nullptr) {
      const auto [entry, is_new] =
          prefix_index_.try_emplace(sequence.prefix.get(), std::ssize(prefixes_));
      if (is_new) prefixes_.push_back(sequence.prefix);
      prefix = entry->second;
    }
    if (shape_.stretches.empty() || shape_.stretches.back().length != sequence.rows ||
        shape_.stretches.back().prefix != prefix) {
      shape_.stretches.push_back(
          {0, sequence.rows, prefix, prefix < 0 ? 0 : sequence.branch->start});
    }
    ++shape_.stretches.back().sequences;
    for (int64_t position = sequence.branch->start; position < sequence.branch->length;
         ++position) {
      numbers_.ids.push_back(
          TokenAt(request.prompt, TargetOf(request), *sequence.branch, position));
      numbers_.positions.push_back(position);
    }
  }

  void PlaceHead(Sequence& sequence) {
    const PrepareRequest& request = requests_[sequence.request];
    const Branch& branch = *sequence.branch;
    const std::vector<Read>& reads = TargetOf(request).reads();
    const auto contexts = static_cast<double>(PlanOf(request).contexts);
    sequence.first_head_row = std::ssize(numbers_.head_rows);
    for (int64_t position = branch.start; position < branch.length; ++position) {
      const bool is_read =
          std::any_of(branch.reads.begin(), branch.reads.end(), [&](const PlannedRead& read) {
            return read.row == position && reads[read.read].kind == Read::Kind::kSurprisal;
          });
      const bool counts = branch.Counts(position + 1);
      const bool next = branch.counts && position == branch.last;
      if (!is_read && !counts && !next) continue;
      const int64_t head_row = std::ssize(numbers_.head_rows);
      sequence.head_positions.push_back(position);
      numbers_.head_rows.push_back(sequence.RowOf(position));
      numbers_.labels.push_back(
          position + 1 < branch.length
              ? TokenAt(request.prompt, TargetOf(request), branch, position + 1)
              : 0);
      label_weights_.push_back(counts ? 1.0 / static_cast<double>(branch.counted()) / contexts
                                      : 0.0);
      if (next) {
        sequence.next = std::ssize(numbers_.nexts);
        numbers_.nexts.push_back(head_row);
      }
      if (is_read) {
        surprisal_of_head_row_[head_row] = numbers_.surprisals.size();
        numbers_.surprisals.push_back(head_row);
        numbers_.surprisal_targets.push_back(TargetRow(sequence.RowOf(position)));
      }
    }
  }

  // Where `row` stands among the rows whose head is read for a target.
  int64_t TargetRow(int64_t row) {
    const auto [entry, is_new] = target_row_.try_emplace(row, std::ssize(numbers_.target_rows));
    if (is_new) numbers_.target_rows.push_back(row);
    return entry->second;
  }

  void PlaceReads() {
    std::vector<size_t*> places;
    struct OfAttention {
      ReadingShape::AttentionRead read;
      size_t* place;
    };
    std::vector<OfAttention> attention;
    for (Sequence& sequence : sequences_) {
      const ModelTarget& target = TargetOf(requests_[sequence.request]);
      sequence.number_of_read.resize(sequence.branch->reads.size());
      for (size_t r = 0; r < sequence.branch->reads.size(); ++r) {
        const PlannedRead& planned = sequence.branch->reads[r];
        const Read& read = target.reads()[planned.read];
        size_t* const place = &sequence.number_of_read[r];
        if (read.kind == Read::Kind::kSurprisal) {
          *place = static_cast<size_t>(sequence.HeadRowBefore(planned.row + 1));
        } else if (read.kind == Read::Kind::kAttention) {
          attention.push_back(
              {{read.layer, read.which, sequence.first_row, sequence.RowOf(planned.row),
                planned.key,
                sequence.prefix == nullptr ? -1 : prefix_index_.at(sequence.prefix.get())},
               place});
        } else {
          const int64_t row = sequence.RowOf(planned.row);
          groups_.Add(target, read, read.site == Read::Site::kHead ? TargetRow(row) : row,
                      places.size());
          places.push_back(place);
        }
      }
    }
    shape_.surprisals = std::ssize(numbers_.surprisals);
    shape_.target_rows = std::ssize(numbers_.target_rows);
    auto number = static_cast<size_t>(shape_.head_rows + shape_.nexts);
    for (const auto& [key, group] : groups_.groups()) {
      shape_.groups.push_back({key, std::ssize(group.rows)});
      numbers_.read_rows.insert(numbers_.read_rows.end(), group.rows.begin(), group.rows.end());
      numbers_.read_which.insert(numbers_.read_which.end(), group.which.begin(), group.which.end());
      for (const size_t result : group.results) *places[result] = number++;
    }
    // Attention's numbers come as layers are passed.
    std::stable_sort(attention.begin(), attention.end(),
                     [](const auto& a, const auto& b) { return a.read.layer < b.read.layer; });
    for (const OfAttention& of : attention) {
      shape_.attention.push_back(of.read);
      *of.place = number++;
    }
    reads_ = number - static_cast<size_t>(shape_.head_rows + shape_.nexts);
  }

  const std::span<const PrepareRequest> requests_;
  std::vector<Sequence> sequences_;
  ReadingShape shape_;
  ReadingInputs numbers_;
  std::vector<double> label_weights_;
  ReadGroups groups_;
  std::map<const SharedPrefix*, int64_t> prefix_index_;
  std::vector<std::shared_ptr<const SharedPrefix>> prefixes_;
  std::map<int64_t, size_t> surprisal_of_head_row_;
  std::map<int64_t, int64_t> target_row_;
  size_t reads_ = 0;
};

// Forward, and with gradients the cross-entropy's way back through all layers and the target's from
// its own.
int64_t Flops(const ModelConfig& config, const ReadingShape& shape) {
  int64_t deepest = shape.surprisals > 0 ? config.layers : 0;
  for (const ReadingShape::Group& group : shape.groups) {
    const Read read{.site = group.key.site, .layer = group.key.layer};
    deepest = std::max(deepest, read.Depth(config));
  }
  for (const auto& read : shape.attention) deepest = std::max(deepest, read.layer + 1);
  const int64_t layer_passes = config.layers + (shape.gradients ? config.layers + deepest : 0);
  return shape.rows * layer_passes * LayerFlops(config) +
         shape.head_rows * (shape.gradients ? 2 : 1) * HeadFlops(config);
}

// What a pass leaves on the device.
struct DeviceResults {
  at::Tensor for_the_host, keys_values, log_probs, target_gradient, cross_entropy_gradient;
};

// Copies: a prompt that survives long must not keep the whole pass alive.
at::Tensor Copy(const at::Tensor& all, int64_t dim, int64_t first, int64_t count) {
  return all.narrow(dim, first, count).clone(at::MemoryFormat::Contiguous);
}

// What one sequence leaves to its prompt.
void KeepTensors(const Sequence& sequence, const DeviceResults& results, PreparedPrompt& prompt) {
  const Branch& branch = *sequence.branch;
  PreparedBranch& kept = prompt.branches[sequence.branch_index];
  kept.keys_values = Copy(results.keys_values, 2, sequence.first_row, sequence.rows);
  const auto tokens = std::ssize(prompt.ids);
  const auto add = [&](const at::Tensor& gradient, at::Tensor& sum) {
    const at::Tensor own = Copy(gradient, 0, sequence.RowOf(branch.prefix), tokens);
    sum = sum.defined() ? sum + own : own;
  };
  add(results.target_gradient, prompt.target_gradient);
  if (!branch.counts) return;
  add(results.cross_entropy_gradient, prompt.cross_entropy_gradient);
  // Of the prompt's own tokens; the suffix is not changed by anyone.
  const int64_t first = std::max(branch.first_counted, branch.prefix);
  const int64_t own = branch.prefix + tokens - first;
  if (!sequence.PrefixPredicts()) {
    kept.log_probs = own > 0 ? Copy(results.log_probs, 0, sequence.HeadRowBefore(first), own)
                             : results.log_probs.narrow(0, 0, 0).clone();
  } else {
    kept.log_probs = at::cat({sequence.prefix->log_probs.unsqueeze(0),
                              results.log_probs.narrow(0, sequence.first_head_row, own - 1)});
  }
}

// `first_surprisal`: of the first counted token where the prefix predicts it.
void KeepNumbers(const Sequence& sequence, const HostPass& pass, const double* values,
                 double first_surprisal, PreparedPrompt& prompt) {
  const Branch& branch = *sequence.branch;
  PreparedBranch& kept = prompt.branches[sequence.branch_index];
  kept.prefix = sequence.prefix;
  for (int64_t position = branch.first_counted; branch.Counts(position); ++position) {
    const bool by_prefix = sequence.PrefixPredicts() && position == branch.start;
    kept.surprisal.push_back(by_prefix ? first_surprisal
                                       : values[sequence.HeadRowBefore(position)]);
  }
  if (sequence.branch_index == 0) {
    prompt.next = static_cast<TokenId>(values[pass.shape().head_rows + sequence.next]);
  }
}

// x(t): the mean over the contexts of each one's mean.
double CrossEntropy(const PreparedPrompt& prompt) {
  double sum = 0;
  for (size_t b = 0; b < prompt.branches.size(); ++b) {
    const Branch& branch = prompt.plan->branches[b];
    if (!branch.counts) continue;
    if (branch.counted() == 0) return std::numeric_limits<double>::quiet_NaN();
    const std::vector<double>& nats = prompt.branches[b].surprisal;
    sum += std::accumulate(nats.begin(), nats.end(), 0.0) / static_cast<double>(branch.counted());
  }
  return sum / static_cast<double>(prompt.plan->contexts);
}

}  // namespace

std::shared_ptr<const SharedPrefix> PromptReader::PrefixOf(const ModelTarget& target,
                                                           const Branch& branch) {
  if (branch.start == 0) return nullptr;
  const Prompt& whole = target.objective().contexts[branch.context].prefix;
  Prompt tokens(whole.begin(), whole.begin() + branch.start);
  std::weak_ptr<const SharedPrefix>& known = prefixes_[tokens];
  std::shared_ptr<const SharedPrefix> prefix = known.lock();
  if (prefix == nullptr) {
    std::erase_if(prefixes_, [&](const auto& entry) {
      return entry.second.expired() && entry.first != tokens;
    });
    prefix = std::make_shared<const SharedPrefix>(ReadPrefix(model_, tokens));
    prefixes_[tokens] = prefix;
  }
  return prefix;
}

std::vector<std::shared_ptr<const Prepared>> PromptReader::Read(
    std::span<const PrepareRequest> wanted, EvaluatorCounters& counters) {
  const c10::Device device = model_.weights().device();
  const c10::ScalarType wide = AccumulationType(model_.weights().dtype());
  std::vector<PrepareRequest> requests(wanted.begin(), wanted.end());
  while (std::ssize(requests) % bucket_ != 0) requests.push_back(wanted.back());
  std::vector<Sequence> sequences;
  for (size_t r = 0; r < requests.size(); ++r) {
    const std::vector<Branch>& branches = PlanOf(requests[r]).branches;
    for (size_t b = 0; b < branches.size(); ++b) {
      sequences.push_back({.request = r,
                           .branch_index = b,
                           .branch = &branches[b],
                           .prefix = PrefixOf(TargetOf(requests[r]), branches[b])});
    }
  }
  const HostPass pass(requests, std::move(sequences), copies_);
  const ReadingShape& shape = pass.shape();

  // Weights that are known beforehand go in with the rest; others need what is read.
  HostPass::Weights weights = pass.NoWeights();
  bool constant = true;
  if (shape.gradients) {
    for (size_t r = 0; r < requests.size() && constant; ++r) {
      const auto gradient = TargetOf(requests[r]).combiner().ConstantGradient(PlanOf(requests[r]));
      constant = gradient.has_value();
      if (constant) pass.AddWeights(r, *gradient, weights);
    }
  }
  const auto on_device = [&](const std::vector<double>& values) {
    return ToDevice(values, device).to(wide);
  };
  std::vector<at::Tensor> inputs = pass.Inputs(model_);
  DeviceResults results;
  if (constant) {
    const size_t inputs_of_pass = inputs.size();
    inputs.push_back(on_device(weights.reads));
    inputs.push_back(on_device(weights.surprisals));
    const auto tensors = recorded_.Call(
        shape.Key(), inputs,
        [&model = model_, kernels = kernels_, shape,
         inputs_of_pass](const std::vector<at::Tensor>& all) -> std::vector<at::Tensor> {
          const std::vector<at::Tensor> own(all.begin(), all.begin() + inputs_of_pass);
          ReadingPass reading(model, kernels, shape, own);
          reading.Forward();
          if (!shape.gradients) return {reading.for_the_host()};
          const auto gradients = reading.Backward(all[inputs_of_pass], all[inputs_of_pass + 1]);
          return {reading.for_the_host(), reading.KeysValues(), reading.log_probs(),
                  gradients.target, gradients.cross_entropy};
        });
    results.for_the_host = tensors[0];
    if (shape.gradients) {
      results = {tensors[0], tensors[1], tensors[2], tensors[3], tensors[4]};
    }
  } else {
    ReadingPass reading(model_, kernels_, shape, inputs);
    reading.Forward();
    const at::Tensor host = reading.for_the_host().to(at::kCPU);
    weights = pass.NoWeights();
    for (size_t r = 0; r < requests.size(); ++r) {
      BranchNumbers gradient;
      TargetOf(requests[r])
          .combiner()
          .Combine(PlanOf(requests[r]), pass.Numbers(r, host.const_data_ptr<double>()), &gradient);
      pass.AddWeights(r, gradient, weights);
    }
    const auto gradients =
        reading.Backward(on_device(weights.reads), on_device(weights.surprisals));
    results = {reading.for_the_host(), reading.KeysValues(), reading.log_probs(), gradients.target,
               gradients.cross_entropy};
  }
  counters.matmul_flops += Flops(model_.config(), shape);
  counters.prepared_prompts += std::ssize(wanted);

  std::vector<std::shared_ptr<PreparedPrompt>> prompts;
  for (const PrepareRequest& request : wanted) {
    auto& prompt = *prompts.emplace_back(std::make_shared<PreparedPrompt>());
    prompt.ids = request.prompt;
    prompt.goal = request.target;
    prompt.plan = &PlanOf(request);
    prompt.branches.resize(prompt.plan->branches.size());
  }
  std::vector<at::Tensor> host_parts = {results.for_the_host};
  for (const Sequence& sequence : pass.sequences()) {
    if (sequence.request >= wanted.size()) continue;
    PreparedPrompt& prompt = *prompts[sequence.request];
    if (shape.gradients) KeepTensors(sequence, results, prompt);
    if (!sequence.PrefixPredicts()) continue;
    host_parts.push_back(
        sequence.prefix->log_probs.narrow(0, prompt.ids[0], 1).to(at::kDouble).neg());
  }
  // Waits for the device.
  const at::Tensor host =
      (host_parts.size() == 1 ? host_parts[0] : at::cat(host_parts)).to(at::kCPU);
  const double* values = host.const_data_ptr<double>();
  const double* first_surprisal = values + results.for_the_host.size(0);
  for (const Sequence& sequence : pass.sequences()) {
    if (sequence.request >= wanted.size()) continue;
    const double first = sequence.PrefixPredicts() ? *first_surprisal++ : 0;
    KeepNumbers(sequence, pass, values, first, *prompts[sequence.request]);
  }
  for (size_t r = 0; r < wanted.size(); ++r) {
    PreparedPrompt& prompt = *prompts[r];
    const BranchNumbers numbers = pass.Numbers(r, values);
    for (size_t b = 0; b < numbers.size(); ++b) prompt.branches[b].reads = numbers[b];
    Combined combined =
        prompt.model_target().combiner().Combine(*prompt.plan, numbers, /*gradient=*/nullptr);
    prompt.value = combined.target;
    prompt.terms = std::move(combined.terms);
    prompt.cross_entropy = static_cast<float>(CrossEntropy(prompt));
  }
  return {prompts.begin(), prompts.end()};
}

}  // namespace epo
