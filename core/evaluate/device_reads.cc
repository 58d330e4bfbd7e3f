#include "core/evaluate/device_reads.h"

#include <ATen/ATen.h>

#include <limits>

#include "core/evaluate/layout.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

bool HasVector(Read::Kind kind) {
  return kind == Read::Kind::kDot || kind == Read::Kind::kStandardised ||
         kind == Read::Kind::kCosine;
}

}  // namespace

size_t ReadGroups::WidthOf(Read::Site site) {
  switch (site) {
    case Read::Site::kHeads:
      return 1;
    case Read::Site::kNeurons:
      return 2;
    default:
      return 0;
  }
}

void ReadGroups::Add(const ModelTarget& target, const Read& read, int64_t row, size_t result) {
  Group& group = groups_[{read.layer, read.site, read.kind}];
  group.rows.push_back(row);
  group.results.push_back(result);
  int64_t which = read.which;
  if (HasVector(read.kind)) {
    const size_t width = WidthOf(read.site);
    const at::Tensor& vector = target.vectors()[read.vector];
    const auto [entry, is_new] =
        index_[width].try_emplace(vector.unsafeGetTensorImpl(), std::ssize(vectors_[width]));
    if (is_new) vectors_[width].push_back(vector);
    which = entry->second;
  }
  group.which.push_back(which);
}

void ReadGroups::Pad(int64_t multiple) {
  for (auto& [key, group] : groups_) {
    const int64_t size = RoundUp(std::ssize(group.rows), multiple);
    group.rows.resize(size, 0);
    group.which.resize(size, 0);
  }
}

std::array<at::Tensor, 3> ReadGroups::Vectors() const {
  std::array<at::Tensor, 3> all;
  for (size_t width = 0; width < all.size(); ++width) {
    if (!vectors_[width].empty()) all[width] = at::stack(vectors_[width]);
  }
  return all;
}

at::Tensor ReadRows(Read::Kind kind, const at::Tensor& x, const at::Tensor& rows,
                    const at::Tensor& which, const at::Tensor& vectors, c10::ScalarType wide) {
  if (kind == Read::Kind::kElement) return x.index({rows, which}).to(wide);
  at::Tensor h = x.index_select(0, rows).to(wide);
  const at::Tensor vector = vectors.index_select(0, which);
  if (kind == Read::Kind::kStandardised) {
    h = (h - h.mean(1, /*keepdim=*/true)) / h.std(1, /*unbiased=*/true, /*keepdim=*/true);
  }
  const at::Tensor dot = (h * vector).sum(1);
  return kind == Read::Kind::kCosine ? dot / h.norm(2, {1}) : dot;
}

at::Tensor ReadLogits(const Model& model, Read::Kind kind, const at::Tensor& normed,
                      const at::Tensor& tokens, c10::ScalarType wide) {
  const LinearWeights& head = model.weights().head;
  if (kind == Read::Kind::kLogit) {
    at::Tensor logit = (normed.to(wide) * head.weight.index_select(0, tokens).to(wide)).sum(1);
    if (head.bias.defined()) logit = logit + head.bias.index_select(0, tokens).to(wide);
    return logit;
  }
  return Apply(head, normed)
      .to(wide)
      .scatter(1, tokens.unsqueeze(1), -std::numeric_limits<double>::infinity())
      .amax({1});
}

}  // namespace epo
