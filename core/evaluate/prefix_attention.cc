#include "core/evaluate/prefix_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/evaluate/prepared_prompt.h"

namespace epo {
namespace {

// Keys at a time: the scores of a block's rows to them stay in the second-level cache.
constexpr int64_t kKeys = 128;

}  // namespace

void PrefixAttention::RunHead(int64_t layer, int64_t kv_head, const SharedPrefix& prefix,
                              std::span<const int64_t> rows, const float* query,
                              PackedProduct& product) {
  const int64_t width = config_.head_dim;
  const int64_t group = config_.heads / config_.kv_heads;
  const int64_t count = std::ssize(rows) * group;
  const auto tokens = std::ssize(prefix.tokens);
  const float scale = 1.0F / std::sqrt(static_cast<float>(width));
  queries_.resize(count * width);
  for (int64_t i = 0; i < std::ssize(rows); ++i) {
    const float* from = query + (rows[i] * config_.heads + kv_head * group) * width;
    std::copy(from, from + group * width, queries_.begin() + i * group * width);
  }
  scores_.resize(count * kKeys);
  head_greatest_.assign(count, -std::numeric_limits<float>::infinity());
  head_sum_.assign(count, 0);
  head_mixed_.assign(count * width, 0);
  const int64_t stride = config_.kv_heads * width;
  const float* keys =
      prefix.keys_values.const_data_ptr<float>() + layer * 2 * tokens * stride + kv_head * width;
  const float* values = prefix.value_columns.const_data_ptr<float>() +
                        (layer * config_.kv_heads + kv_head) * width * tokens;
  for (int64_t key = 0; key < tokens; key += kKeys) {
    const int64_t some = std::min(kKeys, tokens - key);
    product.Multiply(queries_.data(), count,
                     {.data = keys + key * stride, .out = some, .in = width, .stride = stride},
                     nullptr, PackedProduct::Into::kSet, scores_.data(), some);
    kernels::AddToAttention(scores_.data(), count, some, scale, width, head_greatest_.data(),
                            head_sum_.data(), head_mixed_.data());
    product.Multiply(scores_.data(), count,
                     {.data = values + key, .out = width, .in = some, .stride = tokens}, nullptr,
                     PackedProduct::Into::kAdd, head_mixed_.data(), width);
  }
  for (int64_t i = 0; i < std::ssize(rows); ++i) {
    const int64_t to = rows[i] * config_.heads + kv_head * group;
    std::copy_n(head_greatest_.begin() + i * group, group, greatest_.begin() + to);
    std::copy_n(head_sum_.begin() + i * group, group, sum_.begin() + to);
    std::copy_n(head_mixed_.begin() + i * group * width, group * width,
                mixed_.begin() + to * width);
  }
}

kernels::PartialAttention PrefixAttention::Run(int64_t layer, std::span<const PassItem> items,
                                               const Layout& layout, const float* query,
                                               PackedProduct& product) {
  std::map<const SharedPrefix*, std::vector<int64_t>> rows_of;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].parent->prefix == nullptr) continue;
    std::vector<int64_t>& rows = rows_of[items[i].parent->prefix.get()];
    const Layout::Item& place = layout.items[i];
    for (int64_t r = 0; r < place.count; ++r) rows.push_back(place.row + r);
    if (place.tail_row >= layout.rows_at[layer]) continue;
    for (int64_t r = 0; r < place.tail_count; ++r) rows.push_back(place.tail_row + r);
  }
  if (rows_of.empty()) return {};
  const int64_t heads = layout.rows_at[layer] * config_.heads;
  greatest_.resize(heads);
  sum_.resize(heads);
  mixed_.resize(heads * config_.head_dim);
  for (const auto& [prefix, rows] : rows_of) {
    for (int64_t kv_head = 0; kv_head < config_.kv_heads; ++kv_head) {
      RunHead(layer, kv_head, *prefix, rows, query, product);
    }
  }
  return {greatest_.data(), sum_.data(), mixed_.data()};
}

}  // namespace epo
