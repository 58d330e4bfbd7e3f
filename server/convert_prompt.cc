#include "server/convert_prompt.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace epo {
namespace {

// Ids that a message shows of a text that is no single token.
constexpr size_t kShownIds = 8;

}  // namespace

std::string Index(const std::string& path, int i) { return absl::StrCat(path, "[", i, "]"); }

bool Reported(const FieldViolations& violations, const std::string& field) {
  return std::any_of(violations.begin(), violations.end(),
                     [&](const FieldViolation& v) { return v.field == field; });
}

void AddUnder(const std::string& path, FieldViolations found, FieldViolations& violations) {
  for (FieldViolation& violation : found) {
    std::string field = absl::StrCat(path, ".", violation.field);
    if (Reported(violations, field)) continue;
    violations.push_back({std::move(field), std::move(violation.description)});
  }
}

Prompt ParsePrompt(const Model& model, const v1::Prompt& prompt, const std::string& path,
                   FieldViolations& violations) {
  Prompt out;
  switch (prompt.source_case()) {
    case v1::Prompt::kText:
      out = model.tokenizer().Encode(prompt.text());
      if (out.empty()) violations.push_back({path, "is an empty text; give at least one token"});
      break;
    case v1::Prompt::kIds: {
      out.assign(prompt.ids().ids().begin(), prompt.ids().ids().end());
      if (out.empty()) violations.push_back({path, "has no ids; give at least one"});
      break;
    }
    case v1::Prompt::SOURCE_NOT_SET:
      violations.push_back({path, "is empty; set its text or its ids"});
      return out;
  }
  const int64_t vocabulary = model.config().vocab_size;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] >= 0 && out[i] < vocabulary) continue;
    violations.push_back(
        {path, absl::StrCat("id ", out[i], " at position ", i,
                            " is not in the vocabulary; ids go from 0 to ", vocabulary - 1)});
    break;
  }
  const int64_t context = model.config().context_length;
  if (static_cast<int64_t>(out.size()) > context) {
    violations.push_back(
        {path, absl::StrCat("has ", out.size(), " tokens, but the model's context is ", context,
                            " tokens")});
  }
  return out;
}

TokenId ParseToken(const Model& model, const v1::TokenReference& token, const std::string& path,
                   FieldViolations& violations) {
  switch (token.source_case()) {
    case v1::TokenReference::kId:
      return token.id();
    case v1::TokenReference::kText: {
      const Prompt ids = model.tokenizer().Encode(token.text());
      if (ids.size() == 1) return ids[0];
      if (ids.empty()) {
        violations.push_back({path, "is an empty text; give the text of one token"});
        return 0;
      }
      const std::vector<TokenId> shown(ids.begin(), ids.begin() + std::min(ids.size(), kShownIds));
      violations.push_back(
          {path, absl::StrCat("is a text of ", ids.size(), " tokens, the ids ",
                              absl::StrJoin(shown, ", "), ids.size() > kShownIds ? ", ..." : "",
                              "; give the text of one token (a word in mid-sentence begins with a "
                              "space), or an id")});
      return 0;
    }
    case v1::TokenReference::SOURCE_NOT_SET:
      break;
  }
  violations.push_back({path, "is required; set its text or its id"});
  return 0;
}

}  // namespace epo
