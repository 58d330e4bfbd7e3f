#include "core/evaluate/score.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/evaluate/flops.h"
#include "core/evaluate/layout.h"

namespace epo {
namespace {

const PreparedPrompt& ParentOf(const Candidate& candidate) {
  return static_cast<const PreparedPrompt&>(*candidate.parent);
}

int64_t LengthOf(const Candidate& candidate) {
  return candidate.first_changed + std::ssize(candidate.tokens);
}

const Plan& PlanOf(const Candidate& candidate) {
  return ParentOf(candidate).model_target().PlanFor(LengthOf(candidate));
}

// Where a branch of the parent has read what `planned` says; its reads' size when nowhere.
size_t FindRead(const Branch& of_parent, size_t hint, const PlannedRead& planned) {
  const auto same = [&](const PlannedRead& other) {
    return other.read == planned.read && other.row == planned.row && other.key == planned.key;
  };
  const std::vector<PlannedRead>& reads = of_parent.reads;
  if (hint < reads.size() && same(reads[hint])) return hint;
  return std::find_if(reads.begin(), reads.end(), same) - reads.begin();
}

PassItem ItemOf(const Candidate& candidate, const Branch& branch, const PreparedBranch& parent) {
  PassItem item;
  item.target = &ParentOf(candidate).model_target();
  item.branch = &branch;
  item.parent = &parent;
  item.first = branch.prefix + candidate.first_changed;
  // One more than the rows: what the last of them predicts.
  const int64_t end = std::min(branch.length, branch.end + 1);
  const int64_t suffix = branch.prefix + LengthOf(candidate);
  for (int64_t position = item.first; position < end; ++position) {
    item.tokens.push_back(position < suffix ? candidate.tokens[position - item.first]
                                            : branch.tail[position - suffix]);
  }
  return item;
}

// The surprisal of one branch's counted tokens: those before the change, which are its parent's,
// the changed one, and those after it.
double Surprisal(const PassItem& item, int64_t change, const PassResult& result) {
  double total = 0;
  for (int64_t t = item.branch->first_counted; t < item.first && item.branch->Counts(t); ++t) {
    total += item.parent->surprisal[t - item.branch->first_counted];
  }
  if (change >= 0) total += result.changes[change];
  for (int64_t s = 0; s < item.surprisals(); ++s) {
    total += result.numbers[item.numbers_at + static_cast<size_t>(s)];
  }
  return total;
}

std::vector<double> Reads(const PassItem& item, const Branch& of_parent, const PassResult& result) {
  std::vector<double> reads;
  for (size_t r = 0; r < item.branch->reads.size(); ++r) {
    const PlannedRead& planned = item.branch->reads[r];
    reads.push_back(planned.row < item.first ? item.parent->reads[FindRead(of_parent, r, planned)]
                                             : result.numbers[item.reads_at() + r]);
  }
  return reads;
}

}  // namespace

absl::Status CheckCandidate(const Candidate& candidate) {
  const PreparedPrompt& parent = ParentOf(candidate);
  const int64_t length = LengthOf(candidate);
  if (absl::Status status = parent.target()->CheckLength(length); !status.ok()) return status;
  const Plan& plan = PlanOf(candidate);
  for (size_t b = 0; b < plan.branches.size(); ++b) {
    const Branch& branch = plan.branches[b];
    const Branch& of_parent = parent.plan->branches[b];
    for (size_t r = 0; r < branch.reads.size(); ++r) {
      if (branch.reads[r].row >= branch.prefix + candidate.first_changed) continue;
      if (FindRead(of_parent, r, branch.reads[r]) == of_parent.reads.size()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "a candidate of ", length, " tokens, changed from position ", candidate.first_changed,
            " on, is read before that, where its parent of ", parent.ids.size(), " tokens is not"));
      }
    }
  }
  return absl::OkStatus();
}

int64_t RowsOf(const Candidate& candidate) {
  int64_t rows = 0;
  for (const Branch& branch : PlanOf(candidate).branches) {
    rows += std::max<int64_t>(0, branch.end - branch.prefix - candidate.first_changed);
  }
  return rows;
}

Packed Pack(std::span<const Candidate> candidates) {
  Packed packed;
  for (const Candidate& candidate : candidates) {
    const Plan& plan = PlanOf(candidate);
    Packed::Place& place = packed.places.emplace_back();
    place.first_item = packed.items.size();
    for (size_t b = 0; b < plan.branches.size(); ++b) {
      const Branch& branch = plan.branches[b];
      PassItem& item =
          packed.items.emplace_back(ItemOf(candidate, branch, ParentOf(candidate).branches[b]));
      item.numbers_at = packed.numbers;
      packed.numbers = item.reads_at() + branch.reads.size();
      place.changes.push_back(branch.Counts(item.first) ? std::ssize(packed.changes) : -1);
      if (!branch.Counts(item.first)) continue;
      const int64_t first_row = std::max(branch.first_counted, branch.prefix);
      packed.changes.push_back({item.parent, item.first - first_row, candidate.tokens[0]});
    }
  }
  return packed;
}

std::vector<Score> ScorePass(const ModelConfig& config, PackedPass& pass,
                             std::span<const Candidate> candidates, EvaluatorCounters& counters) {
  const Packed packed = Pack(candidates);
  const Layout layout = LayOut(config, packed.items);
  const PassResult result =
      pass.Run(packed.items, packed.changes, layout, packed.numbers, counters);

  std::vector<Score> scores;
  for (size_t c = 0; c < candidates.size(); ++c) {
    const PreparedPrompt& parent = ParentOf(candidates[c]);
    const Plan& plan = PlanOf(candidates[c]);
    BranchNumbers reads;
    double cross_entropy = 0;
    for (size_t b = 0; b < plan.branches.size(); ++b) {
      const PassItem& item = packed.items[packed.places[c].first_item + b];
      reads.push_back(Reads(item, parent.plan->branches[b], result));
      counters.exhaustive_rows += plan.branches[b].length;
      if (!plan.branches[b].counts) continue;
      const int64_t counted = plan.branches[b].counted();
      cross_entropy += counted > 0 ? Surprisal(item, packed.places[c].changes[b], result) /
                                         static_cast<double>(counted)
                                   : std::numeric_limits<double>::quiet_NaN();
    }
    cross_entropy /= static_cast<double>(plan.contexts);
    const Combined combined =
        parent.model_target().combiner().Combine(plan, reads, /*gradient=*/nullptr);
    scores.push_back({static_cast<float>(combined.target), static_cast<float>(cross_entropy)});
  }
  counters.candidates += static_cast<int64_t>(candidates.size());
  counters.rows += static_cast<int64_t>(layout.ids.size());
  counters.head_rows += std::ssize(layout.head_rows);
  for (const int64_t rows : layout.rows_at) counters.matmul_flops += rows * LayerFlops(config);
  counters.matmul_flops += std::ssize(layout.head_rows) * HeadFlops(config);
  return scores;
}

}  // namespace epo
