#include "core/evaluate/layout.h"

#include <algorithm>
#include <numeric>

#include "core/evaluate/model_target.h"

namespace epo {

int64_t PassItem::surprisals() const {
  return branch->counts ? std::max<int64_t>(0, branch->end_counted - first - 1) : 0;
}

int64_t PassItem::full_rows() const { return std::max<int64_t>(0, branch->full_end - first); }

int64_t PassItem::tail_rows() const {
  return std::max<int64_t>(0, branch->end - std::max(first, branch->full_end));
}

bool Layout::HeadIsPrefix() const {
  for (size_t i = 0; i < head_rows.size(); ++i) {
    if (head_rows[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

Layout LayOut(const ModelConfig& config, std::span<const PassItem> items) {
  Layout layout;
  layout.items.resize(items.size());
  // Rows for the item's tokens from `begin` to before `end`; gives the first one's.
  const auto add_rows = [&](size_t i, int64_t begin, int64_t end) {
    const auto row = static_cast<int64_t>(layout.ids.size());
    for (int64_t t = begin; t < end; ++t) {
      layout.ids.push_back(items[i].tokens[t]);
      layout.positions.push_back(items[i].first + t);
      layout.item.push_back(static_cast<int64_t>(i));
    }
    return row;
  };
  for (size_t i = 0; i < items.size(); ++i) {
    layout.items[i].count = items[i].full_rows();
    layout.items[i].row = add_rows(i, 0, layout.items[i].count);
  }
  layout.full = static_cast<int64_t>(layout.ids.size());

  const auto depth = [&](size_t i) { return items[i].branch->tail_depth; };
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return depth(a) > depth(b); });
  layout.rows_at.assign(config.layers, layout.full);
  for (const size_t i : order) {
    Layout::Item& place = layout.items[i];
    place.tail_count = items[i].tail_rows();
    place.tail_row = add_rows(i, place.count, place.count + place.tail_count);
    for (int64_t layer = 0; layer < depth(i); ++layer) layout.rows_at[layer] += place.tail_count;
  }

  for (size_t i = 0; i < items.size(); ++i) {
    const PassItem& item = items[i];
    const Layout::Item& place = layout.items[i];
    const auto row_of = [&](int64_t position) {
      const int64_t t = position - item.first;
      return t < place.count ? place.row + t : place.tail_row + t - place.count;
    };
    for (int64_t s = 0; s < item.surprisals(); ++s) {
      layout.head_rows.push_back(row_of(item.first + s));
      layout.labels.push_back(item.tokens[s + 1]);
      layout.surprisal_numbers.push_back(item.numbers_at + static_cast<size_t>(s));
    }
    for (size_t r = 0; r < item.branch->reads.size(); ++r) {
      const PlannedRead& planned = item.branch->reads[r];
      if (planned.row < item.first) continue;
      const Read& read = item.target->reads()[planned.read];
      const size_t number = item.reads_at() + r;
      if (read.kind == Read::Kind::kSurprisal) {
        layout.head_rows.push_back(row_of(planned.row));
        layout.labels.push_back(item.tokens[planned.row + 1 - item.first]);
        layout.surprisal_numbers.push_back(number);
      } else {
        layout.reads.push_back({&read, i, row_of(planned.row), planned.key, number});
      }
    }
  }
  return layout;
}

}  // namespace epo
