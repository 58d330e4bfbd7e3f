// What a saved search holds behind its digest (and, first, the bytes as they are): what restores
// goes on.
#include <memory>
#include <utility>
#include <vector>

#include "core/search/search.h"
#include "core/search/state_seal.h"
#include "tests/fuzz/fuzz.h"

namespace epo {
namespace {

constexpr int kVocabulary = 32;

SearchOptions Options() {
  SearchOptions options;
  options.tokens = 3;
  options.population = 2;
  options.children_per_parent = 2;
  options.top_k = 4;
  options.iterations = 4;
  options.restart_period = 2;
  return options;
}

std::shared_ptr<const AllowedTokens> AllTokens() {
  auto allowed = std::make_shared<AllowedTokens>();
  for (int id = 0; id < kVocabulary; ++id) allowed->ids.push_back(id);
  allowed->mask.assign(kVocabulary, 1);
  return allowed;
}

Score ScoreOf(const Prompt& prompt) {
  return {static_cast<float>(prompt[0]), static_cast<float>(prompt[1] + prompt[2])};
}

void Step(Search& search) {
  const std::vector<Prompt> parents(search.parents().begin(), search.parents().end());
  std::vector<Score> parent_scores, child_scores;
  std::vector<Prompt> children;
  for (const Prompt& parent : parents) {
    Require(parent.size() == 3, "a parent has the length asked for");
    for (const TokenId id : parent) Require(id >= 0 && id < kVocabulary, "a parent has tokens");
    parent_scores.push_back(ScoreOf(parent));
  }
  for (const Mutation& mutation : search.Ask()) {
    Require(mutation.slot >= 0 && mutation.slot < 2 && mutation.position >= 0 &&
                mutation.position < 3 && mutation.rank >= 0 && mutation.rank < 4,
            "a mutation is within its ranges");
    Prompt child = parents[mutation.slot];
    child[mutation.position] = (child[mutation.position] + mutation.rank) % kVocabulary;
    child_scores.push_back(ScoreOf(child));
    children.push_back(std::move(child));
  }
  search.Tell(parent_scores, std::move(children), child_scores);
}

}  // namespace
}  // namespace epo

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using epo::Require, epo::Search;
  static const epo::SearchOptions& options = *new epo::SearchOptions(epo::Options());
  static const auto& allowed = *new auto(epo::AllTokens());
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)Search::Restore(options, allowed, bytes);
  auto restored = Search::Restore(options, allowed, epo::StateSeal(options).Seal(bytes));
  if (!restored.ok()) {
    Require(restored.status().code() == absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT");
    return 0;
  }
  Search& search = **restored;
  const std::string saved = search.Save();
  const auto again = Search::Restore(options, allowed, saved);
  Require(again.ok() && (*again)->Save() == saved, "what is saved restores to the same");
  int left = options.iterations - search.completed_iterations();
  Require(left >= 0 && search.done() == (left == 0), "iterations are counted");
  for (; left > 0; --left) epo::Step(search);
  Require(search.done(), "a search ends");
  for (const epo::ScoredPrompt& point : search.frontier()) {
    Require(point.score == point.score, "the frontier has no NaN");
  }
  return 0;
}
