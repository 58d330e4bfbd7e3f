#include "core/search/redraw.h"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace epo {
namespace {

// How often a refused child is drawn again, in rounds: a round is one call of the evaluator, so a
// child that few draws would mend costs few, and one that is hard to mend costs few rounds.
constexpr int kDraws[] = {4, 16, 64};

// A mutation of a brood, by its index.
struct Refused {
  const Brood* brood;
  size_t index;

  Mutation& mutation() const { return brood->mutations[index]; }
  TokenId& token() const { return brood->tokens[index]; }
};

SubstituteQuery QueryFor(const Brood& brood, const Mutation& mutation) {
  return {brood.parents[mutation.slot].get(), brood.search->penalties()[mutation.slot],
          mutation.position, mutation.rank, brood.allowed};
}

Prompt ChildOf(const Brood& brood, const Mutation& mutation, TokenId token) {
  Prompt child = brood.parents[mutation.slot]->prompt();
  child[mutation.position] = token;
  return child;
}

// Why a child is drawn again: it breaks a rule, or it is its parent over again. Without rules that
// is a child as any other; here it would hide that no change is allowed.
bool IsRefused(const Brood& brood, const Mutation& mutation, TokenId token) {
  return brood.parents[mutation.slot]->prompt()[mutation.position] == token ||
         brood.search->rules()->Check(ChildOf(brood, mutation, token)).has_value();
}

std::vector<Refused> FindRefused(std::span<const Brood> broods) {
  std::vector<Refused> refused;
  for (const Brood& brood : broods) {
    if (brood.search->rules() == nullptr) continue;
    for (size_t i = 0; i < brood.mutations.size(); ++i) {
      if (IsRefused(brood, brood.mutations[i], brood.tokens[i])) refused.push_back({&brood, i});
    }
  }
  return refused;
}

// Draws each of `refused` `draws` times; leaves in it those with nothing good among them.
absl::Status DrawAgain(Evaluator& evaluator, int draws, std::vector<Refused>& refused) {
  std::vector<Mutation> drawn;
  std::vector<SubstituteQuery> queries;
  for (const Refused& child : refused) {
    for (int i = 0; i < draws; ++i) {
      drawn.push_back(child.brood->search->Redraw(child.mutation().slot));
      queries.push_back(QueryFor(*child.brood, drawn.back()));
    }
  }
  const auto tokens = evaluator.Substitutes(queries);
  if (!tokens.ok()) return tokens.status();
  std::vector<Refused> left;
  for (size_t r = 0; r < refused.size(); ++r) {
    const Refused& child = refused[r];
    size_t next = r * draws;
    const size_t end = next + draws;
    while (next < end && IsRefused(*child.brood, drawn[next], (*tokens)[next])) ++next;
    if (next == end) {
      left.push_back(child);
      continue;
    }
    child.mutation() = drawn[next];
    child.token() = (*tokens)[next];
  }
  refused = std::move(left);
  return absl::OkStatus();
}

// A slot that hardly any draw finds something for: all that it could have is looked through,
// position by position.
struct Hunt {
  const Brood* brood;
  int slot;
  std::vector<Refused> children;
  // In the order in which they are looked at.
  std::vector<int> positions;
  // The constraints that were met.
  std::set<std::string> broken;
};

std::vector<Hunt> HuntsFor(const std::vector<Refused>& refused) {
  std::map<std::pair<const Brood*, int>, std::vector<Refused>> slots;
  for (const Refused& child : refused) {
    slots[{child.brood, child.mutation().slot}].push_back(child);
  }
  std::vector<Hunt> hunts;
  for (auto& [key, children] : slots) {
    const auto& [brood, slot] = key;
    hunts.push_back({brood, slot, std::move(children), brood->search->DrawPositions(), {}});
  }
  return hunts;
}

absl::Status Impossible(const Hunt& hunt) {
  return absl::FailedPreconditionError(
      absl::StrCat(hunt.broken.empty() ? "constraints" : absl::StrJoin(hunt.broken, " and "),
                   ": the prompt in slot ", hunt.slot, " can change into no other: at each of its ",
                   hunt.positions.size(), " open positions, all of the ", hunt.brood->top_k,
                   " most promising tokens break it; raise top_k, or relax the constraint"));
}

// Whether all of the hunt's children were replaced by what `tokens`, those of all ranks in
// mutation.position, make.
bool Catch(Hunt& hunt, Mutation mutation, std::span<const TokenId> tokens) {
  const PromptRules& rules = *hunt.brood->search->rules();
  const TokenId current = hunt.brood->parents[hunt.slot]->prompt()[mutation.position];
  std::vector<int> good;
  for (int rank = 0; rank < std::ssize(tokens); ++rank) {
    if (tokens[rank] == current) continue;
    const auto breach = rules.Check(ChildOf(*hunt.brood, mutation, tokens[rank]));
    if (breach) {
      hunt.broken.insert(rules.FieldOf(breach->rule));
    } else {
      good.push_back(rank);
    }
  }
  if (good.empty()) return false;
  for (const Refused& child : hunt.children) {
    mutation.rank = good[hunt.brood->search->DrawBelow(static_cast<int>(good.size()))];
    child.mutation() = mutation;
    child.token() = tokens[mutation.rank];
  }
  return true;
}

absl::Status LookThroughAll(Evaluator& evaluator, std::vector<Hunt> hunts) {
  for (size_t step = 0; !hunts.empty(); ++step) {
    for (const Hunt& hunt : hunts) {
      if (step == hunt.positions.size() && !hunt.broken.empty()) return Impossible(hunt);
    }
    // No rule is to blame where the promising tokens are all there already.
    std::erase_if(hunts, [&](const Hunt& hunt) { return step == hunt.positions.size(); });
    std::vector<SubstituteQuery> queries;
    for (const Hunt& hunt : hunts) {
      for (int rank = 0; rank < hunt.brood->top_k; ++rank) {
        queries.push_back(QueryFor(*hunt.brood, {hunt.slot, hunt.positions[step], rank}));
      }
    }
    const auto tokens = evaluator.Substitutes(queries);
    if (!tokens.ok()) return tokens.status();
    size_t first = 0;
    std::vector<Hunt> left;
    for (Hunt& hunt : hunts) {
      const size_t count = hunt.brood->top_k;
      const Mutation mutation{hunt.slot, hunt.positions[step], 0};
      if (!Catch(hunt, mutation, std::span(*tokens).subspan(first, count))) {
        left.push_back(std::move(hunt));
      }
      first += count;
    }
    hunts = std::move(left);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RedrawForbidden(Evaluator& evaluator, std::span<const Brood> broods) {
  std::vector<Refused> refused = FindRefused(broods);
  for (const int draws : kDraws) {
    if (refused.empty()) return absl::OkStatus();
    if (absl::Status status = DrawAgain(evaluator, draws, refused); !status.ok()) return status;
  }
  return LookThroughAll(evaluator, HuntsFor(refused));
}

}  // namespace epo
