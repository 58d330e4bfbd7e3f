#include "core/search/constraints.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/text_pattern.h"
#include "core/model/utf8.h"
#include "core/search/prompt_rules.h"
#include "core/search/search.h"

namespace epo {
namespace {

constexpr char kPath[] = "constraints.";

// Of what a prompt is looked through for again and again, and of one expression.
constexpr size_t kMaxBannedTexts = 100;
constexpr size_t kMaxTextBytes = 1000;

// How long the expression may look at a token; and at how many tokens it may look longer, and how
// long then. Together they bound what a hostile one costs to half a second.
constexpr uint32_t kSteps = 500;
constexpr int kHardTokens = 1000;
constexpr uint32_t kMoreSteps = 20'000;

bool IsAscii(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string Shown(std::string_view text) { return absl::StrCat("\"", std::string(text), "\""); }

// Takes tokens out of a list, field by field.
class Narrower {
 public:
  Narrower(std::vector<TokenId> ids, const Tokenizer& tokenizer, FieldViolations& violations)
      : ids_(std::move(ids)), tokenizer_(tokenizer), violations_(violations) {}

  std::string_view Bytes(TokenId id) const { return tokenizer_.TokenBytes(id); }

  void Report(const std::string& field, std::string description) {
    violations_.push_back({kPath + field, std::move(description)});
  }

  // Once nothing is left, the rest has nothing to say.
  template <class Forbids>
  void Apply(const std::string& field, Forbids&& forbids) {
    const size_t before = ids_.size();
    if (before == 0) return;
    std::erase_if(ids_, forbids);
    if (!ids_.empty()) return;
    Report(field, absl::StrCat("forbids each of the ", before, " tokens that are left to it"));
  }

  void ApplyRegex(const std::string& field, const std::string& regex) {
    if (regex.size() > kMaxTextBytes) {
      return Report(field, absl::StrCat("has ", regex.size(), " bytes, but may have at most ",
                                        kMaxTextBytes));
    }
    const auto pattern = TextPattern::Regex(regex);
    if (!pattern.ok()) {
      return Report(field, absl::StrCat("is no regular expression: ",
                                        std::string(pattern.status().message())));
    }
    absl::flat_hash_set<TokenId> forbidden;
    int hard = 0;
    for (const TokenId id : ids_) {
      const std::string text = tokenizer_.Decode({id});
      auto match = pattern->Find(text, kSteps);
      if (!match.ok() && ++hard <= kHardTokens) match = pattern->Find(text, kMoreSteps);
      if (!match.ok()) {
        return Report(field, absl::StrCat("takes too many steps to match the token ", Shown(text),
                                          "; make it simpler"));
      }
      if (match->has_value()) forbidden.insert(id);
    }
    Apply(field, [&](TokenId id) { return forbidden.contains(id); });
  }

  std::vector<TokenId> Take() { return std::move(ids_); }

 private:
  std::vector<TokenId> ids_;
  const Tokenizer& tokenizer_;
  FieldViolations& violations_;
};

std::string Element(const char* field, size_t i) { return absl::StrCat(field, "[", i, "]"); }

class Checker {
 public:
  Checker(const SearchOptions& options, const Tokenizer& tokenizer,
          const std::vector<TokenId>& allowed)
      : options_(options),
        constraints_(options.constraints),
        tokenizer_(tokenizer),
        allowed_(allowed) {}

  FieldViolations Check() {
    CheckFields();
    CheckFrozen();
    // Of none Narrow() has said so.
    if (!allowed_.empty() && options_.top_k > std::ssize(allowed_)) {
      violations_.push_back(
          {"top_k", absl::StrCat("is ", options_.top_k, ", but the constraints leave ",
                                 allowed_.size(), " tokens; give at most as many")});
    }
    const auto rules = PromptRules::Create(constraints_, tokenizer_);
    for (size_t i = 0; i < options_.initial_prompts.size(); ++i) {
      if (std::ssize(options_.initial_prompts[i]) != options_.tokens) continue;
      CheckPrompt(options_.initial_prompts[i], rules.get(), Element("initial_prompts", i));
    }
    return std::move(violations_);
  }

 private:
  void Report(const std::string& field, std::string description) {
    violations_.push_back({kPath + field, std::move(description)});
  }

  void CheckFields() {
    for (size_t i = 0; i < constraints_.banned_ids.size(); ++i) {
      if (tokenizer_.IsToken(constraints_.banned_ids[i])) continue;
      Report(Element("banned_ids", i),
             absl::StrCat("is ", constraints_.banned_ids[i], ", which is no token"));
    }
    const size_t texts = constraints_.banned_texts.size();
    if (texts > kMaxBannedTexts) {
      Report("banned_texts",
             absl::StrCat("holds ", texts, " texts, but may hold at most ", kMaxBannedTexts));
    }
    for (size_t i = 0; i < std::min(texts, kMaxBannedTexts); ++i) {
      const std::string& text = constraints_.banned_texts[i];
      const std::string field = Element("banned_texts", i);
      if (text.empty()) Report(field, "is empty; give the text, or leave it out");
      if (text.size() > kMaxTextBytes) {
        Report(field,
               absl::StrCat("has ", text.size(), " bytes, but may have at most ", kMaxTextBytes));
      }
      if (!IsValidUtf8(text)) Report(field, "is not UTF-8");
    }
    if (const auto ceiling = constraints_.max_cross_entropy;
        ceiling && (!std::isfinite(*ceiling) || *ceiling <= 0)) {
      Report("max_cross_entropy",
             absl::StrCat("is ", *ceiling, ", but must be a positive number of nats a token"));
    }
  }

  void CheckFrozen() {
    const std::vector<int>& frozen = constraints_.frozen_positions;
    bool known = true;
    for (size_t i = 0; i < frozen.size(); ++i) {
      if (frozen[i] >= 0 && frozen[i] < options_.tokens) continue;
      known = false;
      Report(Element("frozen_positions", i),
             absl::StrCat("is ", frozen[i], ", but must be from 0 to ", options_.tokens - 1));
    }
    if (frozen.empty() || !known) return;
    const auto& prompts = options_.initial_prompts;
    if (prompts.empty()) {
      return Report("frozen_positions",
                    "needs the tokens that are frozen; give them in initial_prompts");
    }
    if (std::set<int>(frozen.begin(), frozen.end()).size() ==
        static_cast<size_t>(options_.tokens)) {
      return Report("frozen_positions", absl::StrCat("freezes all of the ", options_.tokens,
                                                     " tokens; leave one to search at"));
    }
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (std::ssize(prompts[i]) != options_.tokens || prompts[0].size() != prompts[i].size()) {
        continue;
      }
      for (const int position : frozen) {
        if (prompts[i][position] == prompts[0][position]) continue;
        violations_.push_back(
            {Element("initial_prompts", i),
             absl::StrCat(
                 "has the id ", prompts[i][position], " at position ", position,
                 ", which constraints.frozen_positions freezes, but initial_prompts[0] has ",
                 prompts[0][position], "; make them equal there")});
        break;
      }
    }
  }

  void CheckPrompt(const Prompt& prompt, const PromptRules* rules, const std::string& field) {
    const std::set<int> frozen(constraints_.frozen_positions.begin(),
                               constraints_.frozen_positions.end());
    for (int i = 0; i < std::ssize(prompt); ++i) {
      // The other violations come from those who know more of them.
      if (!tokenizer_.IsToken(prompt[i])) {
        if (!frozen.contains(i)) return;
        violations_.push_back(
            {field, absl::StrCat("holds the id ", prompt[i], ", which is no token")});
        return;
      }
      if (std::binary_search(allowed_.begin(), allowed_.end(), prompt[i])) continue;
      const std::string forbidden_by = Forbidding(prompt[i]);
      if (forbidden_by.empty()) continue;
      violations_.push_back({field, absl::StrCat("holds the id ", prompt[i], " at position ", i,
                                                 ", which ", forbidden_by, " forbids")});
      return;
    }
    const auto breach = rules == nullptr ? std::nullopt : rules->Check(prompt);
    if (!breach) return;
    violations_.push_back(
        {field, absl::StrCat("breaks ", rules->FieldOf(breach->rule), " at positions ",
                             breach->first, " to ", breach->last - 1)});
  }

  // The constraint that forbids a token; empty when none does.
  std::string Forbidding(TokenId id) const {
    const std::vector<std::pair<const char*, Constraints>> parts = {
        {"ascii_only", {.ascii_only = constraints_.ascii_only}},
        {"decodable_only", {.decodable_only = constraints_.decodable_only}},
        {"banned_ids", {.banned_ids = constraints_.banned_ids}},
        {"banned_token_regex", {.banned_token_regex = constraints_.banned_token_regex}},
    };
    for (const auto& [field, part] : parts) {
      FieldViolations ignored;
      if (Narrow({id}, part, tokenizer_, ignored).empty()) return kPath + std::string(field);
    }
    return "";
  }

  const SearchOptions& options_;
  const Constraints& constraints_;
  const Tokenizer& tokenizer_;
  const std::vector<TokenId>& allowed_;
  FieldViolations violations_;
};

}  // namespace

std::vector<int> OpenPositions(const Constraints& constraints, int tokens) {
  const std::set<int> frozen(constraints.frozen_positions.begin(),
                             constraints.frozen_positions.end());
  std::vector<int> open;
  for (int i = 0; i < tokens; ++i) {
    if (!frozen.contains(i)) open.push_back(i);
  }
  return open;
}

std::vector<TokenId> Narrow(std::vector<TokenId> ids, const Constraints& constraints,
                            const Tokenizer& tokenizer, FieldViolations& violations) {
  Narrower narrower(std::move(ids), tokenizer, violations);
  if (constraints.ascii_only) {
    narrower.Apply("ascii_only", [&](TokenId id) { return !IsAscii(narrower.Bytes(id)); });
  }
  if (constraints.decodable_only) {
    narrower.Apply("decodable_only", [&](TokenId id) { return !IsValidUtf8(narrower.Bytes(id)); });
  }
  if (!constraints.banned_ids.empty()) {
    const absl::flat_hash_set<TokenId> banned(constraints.banned_ids.begin(),
                                              constraints.banned_ids.end());
    narrower.Apply("banned_ids", [&](TokenId id) { return banned.contains(id); });
  }
  if (!constraints.banned_token_regex.empty()) {
    narrower.ApplyRegex("banned_token_regex", constraints.banned_token_regex);
  }
  for (size_t i = 0; i < std::min(constraints.banned_texts.size(), kMaxBannedTexts); ++i) {
    const std::string& text = constraints.banned_texts[i];
    const auto banned = TextPattern::AnyCase(text);
    if (text.empty() || !banned.ok()) continue;
    // Whatever stands around it, a token that is whole characters brings its text into the prompt.
    narrower.Apply(Element("banned_texts", i), [&](TokenId id) {
      const std::string_view bytes = narrower.Bytes(id);
      return IsValidUtf8(bytes) && banned->Find(bytes).has_value();
    });
  }
  return narrower.Take();
}

FieldViolations ValidateConstraints(const SearchOptions& options, const Tokenizer& tokenizer,
                                    const std::vector<TokenId>& allowed) {
  return Checker(options, tokenizer, allowed).Check();
}

std::shared_ptr<const AllowedTokens> MakeAllowedTokens(const Model& model,
                                                       const SearchOptions& options) {
  auto all = MakeAllowedTokens(model, options.allow_special_tokens);
  if (options.constraints == Constraints()) return all;
  FieldViolations none;
  return AllowTokens(model, Narrow(all->ids, options.constraints, model.tokenizer(), none));
}

}  // namespace epo
