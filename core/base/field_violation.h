// Validation of what a user asked for: every bad field is reported at once, each with a sentence.
#ifndef EPO_CORE_BASE_FIELD_VIOLATION_H_
#define EPO_CORE_BASE_FIELD_VIOLATION_H_

#include <string>
#include <vector>

namespace epo {

// One bad field. `field` is its name in the core's option struct ("top_k"), in the wire contract's
// spelling; the edge prefixes the path of the message that holds it.
struct FieldViolation {
  std::string field;
  // One sentence with the value that was given and the values that would do.
  std::string description;
};

using FieldViolations = std::vector<FieldViolation>;

}  // namespace epo

#endif  // EPO_CORE_BASE_FIELD_VIOLATION_H_
