// Prompts and tokens off the wire, and what all conversions share.
#ifndef EPO_SERVER_CONVERT_PROMPT_H_
#define EPO_SERVER_CONVERT_PROMPT_H_

#include <string>

#include "core/base/field_violation.h"
#include "core/base/types.h"
#include "core/model/model.h"
#include "epo/v1/frontier.pb.h"
#include "epo/v1/objective.pb.h"

namespace epo {

// "path[i]".
std::string Index(const std::string& path, int i);

// Whether something was said about `field`.
bool Reported(const FieldViolations& violations, const std::string& field);

// Adds the core's findings under `path`. What was said about a field already stands: the edge knows
// more about its source.
void AddUnder(const std::string& path, FieldViolations found, FieldViolations& violations);

// The ids of a prompt; of a text, its tokens. What is wrong with it is added under `path`, and some
// ids then returned: it is empty, or not in the vocabulary, or longer than the context.
Prompt ParsePrompt(const Model& model, const v1::Prompt& prompt, const std::string& path,
                   FieldViolations& violations);

// The id of a token, which may not be in the vocabulary. A text of none or several tokens is added
// to `violations` with the ids that it splits into.
TokenId ParseToken(const Model& model, const v1::TokenReference& token, const std::string& path,
                   FieldViolations& violations);

}  // namespace epo

#endif  // EPO_SERVER_CONVERT_PROMPT_H_
