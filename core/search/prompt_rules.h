// The constraints that only a whole prompt can break.
#ifndef EPO_CORE_SEARCH_PROMPT_RULES_H_
#define EPO_CORE_SEARCH_PROMPT_RULES_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/types.h"
#include "core/model/text_pattern.h"
#include "core/model/tokenizer.h"
#include "core/search/constraints.h"

namespace epo {

// Thread-safe: immutable.
class PromptRules {
 public:
  // Null when a prompt of allowed tokens is always good. A banned text that is not UTF-8 bans
  // nothing. `tokenizer` must outlive the rules.
  static std::shared_ptr<const PromptRules> Create(const Constraints& constraints,
                                                   const Tokenizer& tokenizer);

  // How a prompt breaks a rule.
  struct Breach {
    // See FieldOf().
    int rule = 0;
    // The tokens [first, last) that it takes to mend it.
    int first = 0;
    int last = 0;
  };

  // The first rule that `prompt` breaks; none when it is good.
  std::optional<Breach> Check(const Prompt& prompt) const;

  // The rule's field: "constraints.banned_texts[1]".
  std::string FieldOf(int rule) const;

 private:
  PromptRules(const Tokenizer& tokenizer, bool retokenizable)
      : tokenizer_(tokenizer), retokenizable_(retokenizable) {}

  // The tokens of `prompt` that have bytes of `match` in `text`, which it decodes to.
  Breach Locate(int rule, const Prompt& prompt, const std::string& text,
                TextPattern::Match match) const;

  const Tokenizer& tokenizer_;
  // With the index of the field's element.
  std::vector<std::pair<int, TextPattern>> banned_;
  const bool retokenizable_;
};

}  // namespace epo

#endif  // EPO_CORE_SEARCH_PROMPT_RULES_H_
