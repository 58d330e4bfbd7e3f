#include "core/evaluate/recorded.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace epo {
namespace {

// Shapes remembered. A recording holds its inputs and results and what the driver needs for its
// kernels, tens of MB for a large model.
constexpr size_t kMost = 32;

}  // namespace

void Recorded::Forget() {
  const auto oldest = std::min_element(
      entries_.begin(), entries_.end(),
      [](const auto& a, const auto& b) { return a.second.last_call < b.second.last_call; });
  entries_.erase(oldest);
}

Recorded::Tensors Recorded::Call(std::vector<int64_t> shape, const Tensors& inputs,
                                 const Function& function) {
  if (recorder_ == nullptr) return function(inputs);
  for (const at::Tensor& input : inputs) {
    shape.push_back(input.dim());
    shape.insert(shape.end(), input.sizes().begin(), input.sizes().end());
  }
  const auto [place, is_new] = entries_.try_emplace(std::move(shape));
  Entry& entry = place->second;
  entry.last_call = ++calls_;
  if (is_new) {
    if (entries_.size() > kMost) Forget();
    return function(inputs);
  }
  if (entry.recording == nullptr) {
    // An earlier try may have failed.
    entry.inputs.clear();
    for (const at::Tensor& input : inputs) entry.inputs.push_back(input.clone());
    entry.recording = recorder_->Record([function, held = entry.inputs] { return function(held); });
  } else {
    for (size_t i = 0; i < inputs.size(); ++i) entry.inputs[i].copy_(inputs[i]);
  }
  entry.recording->Replay();
  return entry.recording->results();
}

}  // namespace epo
