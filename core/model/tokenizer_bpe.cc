#include "core/model/tokenizer_bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "absl/strings/string_view.h"

namespace epo {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

uint64_t PairKey(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(BpeSpec spec)
    : byte_tokens_(spec.byte_tokens),
      unknown_(spec.unknown),
      fuse_unknown_(spec.fuse_unknown),
      whole_words_(std::move(spec.whole_words)) {
  merges_.reserve(spec.merges.size());
  uint32_t rank = 0;
  for (const MergeRule& merge : spec.merges) {
    merges_.emplace(PairKey(merge.left, merge.right), Merge{rank++, merge.result});
  }
}

const Bpe::Merge* Bpe::Find(TokenId left, TokenId right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::SplitIntoBytes(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  symbols.clear();
  bool after_unknown = false;
  for (const char c : word) {
    TokenId token = byte_tokens_[static_cast<uint8_t>(c)];
    if (token < 0) {
      const bool fused = after_unknown && fuse_unknown_;
      after_unknown = true;
      if (!unknown_ || fused) continue;
      token = *unknown_;
    } else {
      after_unknown = false;
    }
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({token, index == 0 ? kNone : index - 1, index + 1});
  }
  if (!symbols.empty()) symbols.back().next = kNone;
}

void Bpe::Encode(std::string_view word, Scratch& scratch, Prompt& ids) const {
  if (!whole_words_.empty()) {
    const auto found = whole_words_.find(absl::string_view(word.data(), word.size()));
    if (found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  SplitIntoBytes(word, scratch);
  auto& symbols = scratch.symbols_;

  // A min-heap of rank << 32 | position of the left symbol: the best merge first, the leftmost of
  // equals. Entries are not removed when one of their symbols is merged away; they no longer have
  // the rank of the pair at their position, and are dropped when they surface.
  auto& queue = scratch.queue_;
  queue.clear();
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const Merge* merge = Find(symbols[i].token, symbols[i + 1].token)) {
      queue.push_back(static_cast<uint64_t>(merge->rank) << 32 | i);
    }
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  const auto push = [&](uint32_t left, uint32_t right) {
    if (const Merge* merge = Find(symbols[left].token, symbols[right].token)) {
      queue.push_back(static_cast<uint64_t>(merge->rank) << 32 | left);
      std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
  };

  while (!queue.empty()) {
    const auto rank = static_cast<uint32_t>(queue.front() >> 32);
    const auto at = static_cast<uint32_t>(queue.front());
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    queue.pop_back();
    Scratch::Symbol& left = symbols[at];
    if (left.token < 0 || left.next == kNone) continue;
    Scratch::Symbol& right = symbols[left.next];
    const Merge* merge = Find(left.token, right.token);
    if (merge == nullptr || merge->rank != rank) continue;

    left.token = merge->result;
    left.next = right.next;
    right.token = -1;
    if (left.next != kNone) {
      symbols[left.next].previous = at;
      push(at, left.next);
    }
    if (left.previous != kNone) push(left.previous, at);
  }
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.token >= 0) ids.push_back(symbol.token);
  }
}

}  // namespace epo
