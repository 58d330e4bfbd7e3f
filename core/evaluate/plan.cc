#include "core/evaluate/plan.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// A term's frame within a context, and its positions in the sequence.
struct Frame {
  int64_t first = 0;
  int64_t length = 0;

  // -1 when the frame has no such position.
  int64_t At(int64_t index) const {
    const int64_t position = index < 0 ? index + length : index;
    return position >= 0 && position < length ? first + position : -1;
  }
};

absl::Status NoPosition(size_t term, const char* field, int64_t index, int64_t length) {
  return absl::InvalidArgumentError(absl::StrCat(
      "terms[", term, "].", field, ": there is no token ", index, " among ", length, " tokens"));
}

// Builds the branches of one context.
class ContextPlan {
 public:
  ContextPlan(const Objective& objective, size_t context, std::span<const Read> reads,
              std::span<const TermReads> terms, Plan& plan)
      : objective_(objective),
        context_(context),
        reads_(reads),
        term_reads_(terms),
        plan_(plan),
        first_branch_(plan.branches.size()) {
    if (context < objective.contexts.size()) fixed_ = objective.contexts[context];
    AddBranch({});
  }

  absl::Status AddTerm(size_t term) {
    PlannedTerm planned;
    const Term& of = objective_.terms[term];
    const TermReads& reads = term_reads_[term];
    if (const auto* continuation = std::get_if<ContinuationTerm>(&of.kind)) {
      planned.values = Continue(*continuation, reads);
    } else {
      const Frame frame = FrameOf(of.position);
      const bool one = of.position.reduce == Position::Reduce::kOne;
      const int64_t first = frame.At(of.position.first);
      const int64_t last = one ? first : frame.At(of.position.last);
      if (first < 0) return NoPosition(term, "position", of.position.first, frame.length);
      if (last < 0) return NoPosition(term, "position", of.position.last, frame.length);
      if (last < first) {
        return absl::InvalidArgumentError(absl::StrCat("terms[", term, "].position: the window ",
                                                       of.position.first, " to ", of.position.last,
                                                       " is empty in ", frame.length, " tokens"));
      }
      int64_t key = 0;
      if (const auto* attention = std::get_if<AttentionTerm>(&of.kind)) {
        key = frame.At(attention->key);
        if (key < 0) return NoPosition(term, "attention.key", attention->key, frame.length);
        if (key > first) {
          return absl::InvalidArgumentError(
              absl::StrCat("terms[", term, "].attention.key: ", attention->key,
                           " comes after the query at ", of.position.first));
        }
      }
      for (int64_t row = first; row <= last; ++row) {
        planned.values.push_back(Value(first_branch_, reads, row, key));
      }
    }
    plan_.terms.push_back(std::move(planned));
    return absl::OkStatus();
  }

 private:
  // The sequence with `continuation` after it.
  void AddBranch(const Prompt& continuation) {
    Branch branch;
    branch.context = context_;
    branch.counts = plan_.branches.size() == first_branch_;
    branch.prefix = std::ssize(fixed_.prefix);
    branch.tail = fixed_.suffix;
    branch.last = branch.prefix + plan_.tokens + std::ssize(fixed_.suffix) - 1;
    if (branch.counts) {
      branch.first_counted = std::max<int64_t>(branch.prefix, 1);
      branch.end_counted =
          objective_.fluency_over_suffix ? branch.last + 1 : branch.prefix + plan_.tokens;
    }
    branch.tail.insert(branch.tail.end(), continuation.begin(), continuation.end());
    branch.length = branch.prefix + plan_.tokens + std::ssize(branch.tail);
    plan_.branches.push_back(std::move(branch));
  }

  Frame FrameOf(const Position& position) const {
    const Branch& branch = plan_.branches[first_branch_];
    if (position.frame == Position::Frame::kPrompt) return {branch.prefix, plan_.tokens};
    return {0, branch.last + 1};
  }

  // The first continuation follows the context's own sequence; further ones have each their own.
  std::vector<PlannedValue> Continue(const ContinuationTerm& term, const TermReads& reads) {
    size_t at = first_branch_;
    if (continued_) {
      at = plan_.branches.size();
      AddBranch(term.tokens);
    } else {
      continued_ = true;
      Branch& branch = plan_.branches[at];
      branch.tail.insert(branch.tail.end(), term.tokens.begin(), term.tokens.end());
      branch.length += std::ssize(term.tokens);
    }
    std::vector<PlannedValue> values;
    const int64_t last = plan_.branches[at].last;
    for (int64_t i = 0; i < std::ssize(term.tokens); ++i) {
      values.push_back(Value(at, reads, last + i, 0));
    }
    return values;
  }

  PlannedValue Value(size_t at, const TermReads& reads, int64_t row, int64_t key) {
    PlannedValue value;
    value.branch = at;
    value.plus = AddRead(at, reads.plus, row, key);
    if (reads.minus != TermReads::kNone) value.minus = AddRead(at, reads.minus, row, key);
    return value;
  }

  size_t AddRead(size_t at, size_t read, int64_t row, int64_t key) {
    plan_.branches[at].reads.push_back({read, row, key});
    return plan_.branches[at].reads.size() - 1;
  }

  const Objective& objective_;
  const size_t context_;
  const std::span<const Read> reads_;
  const std::span<const TermReads> term_reads_;
  Plan& plan_;
  const size_t first_branch_;
  Context fixed_;
  bool continued_ = false;
};

// Which rows a candidate needs, and how deep.
void SetRows(const ModelConfig& config, std::span<const Read> reads, Branch& branch) {
  branch.start = branch.prefix;
  if (branch.counted() > 0) branch.full_end = branch.end_counted - 1;
  for (const PlannedRead& planned : branch.reads) {
    branch.start = std::min(branch.start, planned.row);
    if (reads[planned.read].Depth(config) == config.layers) {
      branch.full_end = std::max(branch.full_end, planned.row + 1);
    }
  }
  branch.end = branch.full_end;
  for (const PlannedRead& planned : branch.reads) {
    if (planned.row < branch.full_end) continue;
    branch.end = std::max(branch.end, planned.row + 1);
    branch.tail_depth = std::max(branch.tail_depth, reads[planned.read].Depth(config));
  }
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const Objective& objective, const ModelConfig& config,
                              std::span<const Read> reads, std::span<const TermReads> terms,
                              int64_t tokens) {
  Plan plan;
  plan.tokens = tokens;
  plan.contexts = std::max<size_t>(1, objective.contexts.size());
  for (size_t context = 0; context < plan.contexts; ++context) {
    ContextPlan of_context(objective, context, reads, terms, plan);
    for (size_t term = 0; term < objective.terms.size(); ++term) {
      if (absl::Status status = of_context.AddTerm(term); !status.ok()) return status;
    }
  }
  for (Branch& branch : plan.branches) {
    if (tokens < 1 || branch.length > config.context_length) {
      const int64_t fixed = branch.length - tokens;
      return absl::InvalidArgumentError(absl::StrCat(
          "a prompt of ", tokens, " tokens; the model takes 1 to ", config.context_length - fixed,
          fixed == 0 ? "" : absl::StrCat(" beside ", fixed, " fixed ones")));
    }
    SetRows(config, reads, branch);
  }
  return plan;
}

}  // namespace epo
