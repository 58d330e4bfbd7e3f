#include "core/search/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/search/penalties.h"
#include "core/search/state_seal.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using Json = nlohmann::json;

constexpr int kSaveVersion = 1;

// torch's CPU generator: the standard MT19937 behind its two conversions.
class TorchGenerator {
 public:
  explicit TorchGenerator(uint64_t seed) : engine_(static_cast<uint32_t>(seed)) {}

  // One element of torch.randint(0, range, ...), for a range below 2^28.
  int64_t Integer(int64_t range) { return static_cast<int64_t>(engine_() % range); }

  // One element of torch.rand(...) in float32: 24 random bits.
  float Uniform() { return static_cast<float>(engine_() & 0xFFFFFF) * 0x1p-24F; }

  std::string Save() const {
    std::ostringstream stream;
    stream << engine_;
    return stream.str();
  }

  bool Restore(const std::string& text) {
    std::istringstream stream(text);
    stream >> engine_;
    return !stream.fail();
  }

 private:
  std::mt19937 engine_;
};

// How often a first prompt is mended before it is given up: some times a token and more.
constexpr int kMends = 500;
constexpr int kMendsPerToken = 20;

// The first index of `pool` with the least -f + penalty * x, rounded as float32 tensors are, among
// those within the cross-entropy's ceiling; where there are none, with the least x, since that
// leads there. NaN never wins; `fallback` when all are.
int Best(std::span<const Score> pool, float penalty, const Constraints& constraints, int fallback) {
  const auto usable = [](const Score& score) {
    return !std::isnan(score.target) && !std::isnan(score.cross_entropy);
  };
  const bool within = std::any_of(pool.begin(), pool.end(), [&](const Score& score) {
    return usable(score) && constraints.Affords(score.cross_entropy);
  });
  int best = fallback;
  float least = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < pool.size(); ++i) {
    if (!usable(pool[i]) || (within && !constraints.Affords(pool[i].cross_entropy))) continue;
    const float loss =
        within ? -pool[i].target + penalty * pool[i].cross_entropy : pool[i].cross_entropy;
    if (loss < least) {
      least = loss;
      best = static_cast<int>(i);
    }
  }
  return best;
}

class EpoSearch final : public Search {
 public:
  EpoSearch(const SearchOptions& options, std::shared_ptr<const AllowedTokens> allowed,
            std::shared_ptr<const PromptRules> rules)
      : options_(options),
        seal_(options),
        allowed_(std::move(allowed)),
        rules_(std::move(rules)),
        open_(OpenPositions(options.constraints, options.tokens)),
        penalties_(
            LogSpacedPenalties(options.penalty_min, options.penalty_max, options.population)),
        generator_(options.seed) {}

  absl::Status Start() {
    for (int slot = 0; slot < options_.population; ++slot) {
      Prompt prompt;
      if (!options_.initial_prompts.empty()) {
        prompt = options_.initial_prompts[slot % options_.initial_prompts.size()];
      } else {
        for (int i = 0; i < options_.tokens; ++i) prompt.push_back(DrawToken());
        if (absl::Status status = Mend(prompt); !status.ok()) return status;
      }
      parents_.push_back(std::move(prompt));
    }
    return absl::OkStatus();
  }

  bool done() const override { return completed_ >= options_.iterations; }
  int completed_iterations() const override { return completed_; }
  std::span<const float> penalties() const override { return penalties_; }
  std::span<const Prompt> parents() const override { return parents_; }
  std::vector<ScoredPrompt> frontier() const override { return frontier_.Points(); }

  std::vector<Mutation> Ask() override {
    std::vector<Mutation> mutations(options_.population * options_.children_per_parent);
    for (size_t c = 0; c < mutations.size(); ++c) {
      mutations[c].slot = static_cast<int>(c % options_.population);
    }
    // All positions, then all ranks: two tensors in the reference implementation.
    for (Mutation& mutation : mutations) {
      mutation.position = open_[generator_.Integer(std::ssize(open_))];
    }
    for (Mutation& mutation : mutations) {
      mutation.rank = static_cast<int>(generator_.Integer(options_.top_k));
    }
    return mutations;
  }

  const PromptRules* rules() const override { return rules_.get(); }

  Mutation Redraw(int slot) override {
    const int position = open_[generator_.Integer(std::ssize(open_))];
    return {slot, position, DrawBelow(options_.top_k)};
  }

  std::vector<int> DrawPositions() override {
    std::vector<int> positions = open_;
    for (size_t left = positions.size(); left > 1; --left) {
      std::swap(positions[left - 1], positions[generator_.Integer(static_cast<int64_t>(left))]);
    }
    return positions;
  }

  int DrawBelow(int count) override { return static_cast<int>(generator_.Integer(count)); }

  Iteration Tell(std::span<const Score> parent_scores, std::vector<Prompt> children,
                 std::span<const Score> child_scores) override {
    Iteration iteration;
    iteration.index = completed_;
    iteration.ids = std::move(parents_);
    std::move(children.begin(), children.end(), std::back_inserter(iteration.ids));
    iteration.scores.assign(parent_scores.begin(), parent_scores.end());
    iteration.scores.insert(iteration.scores.end(), child_scores.begin(), child_scores.end());
    for (int slot = 0; slot < options_.population; ++slot) {
      iteration.keep.push_back(
          Best(iteration.scores, penalties_[slot], options_.constraints, slot));
    }
    if (options_.restart_period > 0 && completed_ % options_.restart_period == 0) {
      const double low = options_.restart_penalty_low;
      const double width = options_.restart_penalty_high - low;
      iteration.restart_penalty = static_cast<float>(low + width * generator_.Uniform());
      const int best = Best(iteration.scores, *iteration.restart_penalty, options_.constraints, -1);
      if (best >= 0) iteration.keep.assign(options_.population, best);
    }
    parents_.clear();
    for (const int kept : iteration.keep) parents_.push_back(iteration.ids[kept]);
    for (size_t i = 0; i < iteration.ids.size(); ++i) {
      if (!options_.constraints.Affords(iteration.scores[i].cross_entropy)) continue;
      frontier_.Add(iteration.ids[i], iteration.scores[i]);
    }
    ++completed_;
    return iteration;
  }

  std::unique_ptr<Search> Clone() const override { return std::make_unique<EpoSearch>(*this); }

  std::string Save() const override {
    const PenaltyFrontier::Snapshot frontier = frontier_.Save();
    Json chosen = Json::array();
    for (const ScoredPrompt& point : frontier.chosen) {
      chosen.push_back({point.ids, point.score.target, point.score.cross_entropy});
    }
    const Json json = {{"version", kSaveVersion},     {"completed", completed_},
                       {"parents", parents_},         {"generator", generator_.Save()},
                       {"chosen", std::move(chosen)}, {"by_penalty", frontier.by_penalty}};
    const std::vector<uint8_t> bytes = Json::to_cbor(json);
    return seal_.Seal({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

  // False when `blob` is not a state of these options.
  bool Load(std::string_view blob) {
    const std::optional<std::string_view> state = seal_.Open(blob);
    if (!state) return false;
    try {
      const Json json = Json::from_cbor(*state);
      if (json.at("version").get<int>() != kSaveVersion) return false;
      completed_ = json.at("completed").get<int>();
      parents_ = json.at("parents").get<std::vector<Prompt>>();
      if (completed_ < 0 || completed_ > options_.iterations ||
          static_cast<int>(parents_.size()) != options_.population) {
        return false;
      }
      for (const Prompt& parent : parents_) {
        if (!IsPrompt(parent)) return false;
      }
      PenaltyFrontier::Snapshot frontier;
      for (const Json& point : json.at("chosen")) {
        frontier.chosen.push_back(
            {point.at(0).get<Prompt>(), {point.at(1).get<float>(), point.at(2).get<float>()}});
        if (!IsPrompt(frontier.chosen.back().ids)) return false;
      }
      frontier.by_penalty = json.at("by_penalty").get<std::vector<int>>();
      return frontier_.Restore(frontier) &&
             generator_.Restore(json.at("generator").get<std::string>());
    } catch (const Json::exception&) {
      return false;
    }
  }

 private:
  TokenId DrawToken() {
    return allowed_->ids[generator_.Integer(static_cast<int64_t>(allowed_->ids.size()))];
  }

  // Draws tokens of `prompt` again, where it breaks the rules, until it keeps them.
  absl::Status Mend(Prompt& prompt) {
    if (rules_ == nullptr) return absl::OkStatus();
    std::set<std::string> broken;
    for (int left = kMends + kMendsPerToken * options_.tokens; left > 0; --left) {
      const auto breach = rules_->Check(prompt);
      if (!breach) return absl::OkStatus();
      broken.insert(rules_->FieldOf(breach->rule));
      prompt[breach->first + generator_.Integer(breach->last - breach->first)] = DrawToken();
    }
    return absl::FailedPreconditionError(
        absl::StrCat(absl::StrJoin(broken, " and "), ": no first prompt of ", options_.tokens,
                     " tokens that keeps to it was found among the ", allowed_->ids.size(),
                     " allowed tokens; give initial_prompts, or relax the constraint"));
  }

  bool IsPrompt(const Prompt& prompt) const {
    if (static_cast<int>(prompt.size()) != options_.tokens) return false;
    for (const TokenId id : prompt) {
      if (id < 0 || id >= static_cast<int64_t>(allowed_->mask.size())) return false;
    }
    return true;
  }

  const SearchOptions options_;
  const StateSeal seal_;
  const std::shared_ptr<const AllowedTokens> allowed_;
  const std::shared_ptr<const PromptRules> rules_;
  // The positions that may change.
  const std::vector<int> open_;
  const std::vector<float> penalties_;
  TorchGenerator generator_;
  std::vector<Prompt> parents_;
  int completed_ = 0;
  PenaltyFrontier frontier_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Search>> Search::Create(const SearchOptions& options,
                                                       std::shared_ptr<const AllowedTokens> allowed,
                                                       std::shared_ptr<const PromptRules> rules) {
  auto search = std::make_unique<EpoSearch>(options, std::move(allowed), std::move(rules));
  if (absl::Status status = search->Start(); !status.ok()) return status;
  return search;
}

absl::StatusOr<std::unique_ptr<Search>> Search::Restore(
    const SearchOptions& options, std::shared_ptr<const AllowedTokens> allowed,
    std::string_view blob, std::shared_ptr<const PromptRules> rules) {
  auto search = std::make_unique<EpoSearch>(options, std::move(allowed), std::move(rules));
  if (!search->Load(blob)) {
    return absl::InvalidArgumentError("the checkpoint is damaged or of another search");
  }
  return search;
}

}  // namespace epo
