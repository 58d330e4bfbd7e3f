#include "core/search/prompt_rules.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// The rule that is no banned text.
constexpr int kRetokenizable = -1;

}  // namespace

std::shared_ptr<const PromptRules> PromptRules::Create(const Constraints& constraints,
                                                       const Tokenizer& tokenizer) {
  if (constraints.banned_texts.empty() && !constraints.retokenizable) return nullptr;
  auto rules = std::shared_ptr<PromptRules>(new PromptRules(tokenizer, constraints.retokenizable));
  for (size_t i = 0; i < constraints.banned_texts.size(); ++i) {
    auto pattern = TextPattern::AnyCase(constraints.banned_texts[i]);
    if (pattern.ok()) rules->banned_.emplace_back(static_cast<int>(i), *std::move(pattern));
  }
  return rules;
}

std::optional<PromptRules::Breach> PromptRules::Check(const Prompt& prompt) const {
  const std::string text = tokenizer_.Decode(prompt);
  for (const auto& [rule, pattern] : banned_) {
    const auto match = pattern.Find(text);
    if (match) return Locate(rule, prompt, text, *match);
  }
  if (!retokenizable_) return std::nullopt;
  const Prompt again = tokenizer_.Encode(text);
  const auto differ = std::mismatch(prompt.begin(), prompt.end(), again.begin(), again.end());
  if (differ.first == prompt.end() && differ.second == again.end()) return std::nullopt;
  // The token that is read otherwise, and the next, which may be why.
  const auto size = static_cast<int>(prompt.size());
  const int first = std::min(static_cast<int>(differ.first - prompt.begin()), size - 1);
  return Breach{kRetokenizable, first, std::min(first + 2, size)};
}

PromptRules::Breach PromptRules::Locate(int rule, const Prompt& prompt, const std::string& text,
                                        TextPattern::Match match) const {
  const auto size = static_cast<int>(prompt.size());
  // Where U+FFFD stands for bytes, those of the text are not the tokens'.
  if (tokenizer_.DecodeBytes(prompt) != text) return {rule, 0, size};
  Breach breach{rule, 0, size};
  size_t end = 0;
  for (int i = 0; i < size; ++i) {
    end += tokenizer_.TokenBytes(prompt[i]).size();
    if (end <= match.begin) breach.first = i + 1;
    if (end < match.end) continue;
    breach.last = i + 1;
    break;
  }
  return breach;
}

std::string PromptRules::FieldOf(int rule) const {
  return rule == kRetokenizable ? "constraints.retokenizable"
                                : absl::StrCat("constraints.banned_texts[", rule, "]");
}

}  // namespace epo
