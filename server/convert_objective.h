// What a job or a score call maximises, off the wire.
#ifndef EPO_SERVER_CONVERT_OBJECTIVE_H_
#define EPO_SERVER_CONVERT_OBJECTIVE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/field_violation.h"
#include "core/model/model.h"
#include "core/objective/objective.h"
#include "epo/v1/job.pb.h"
#include "epo/v1/service.pb.h"

namespace epo {

// Where the vectors are that objectives name. Thread-safe.
class VectorSource {
 public:
  virtual ~VectorSource() = default;
  // A row of an uploaded vector or matrix. NOT_FOUND or OUT_OF_RANGE with a sentence for the user
  // when there is none, else what the store says.
  virtual absl::StatusOr<VectorValues> Row(const std::string& name, int row) const = 0;
};

// The objective, contexts included, of `spec`, whose fields are named with `prefix` before them
// ("spec." or ""). `vectors` may be null: there are none. All that is wrong but for what depends on
// the model's shape is added to `violations`.
Objective ParseObjective(const Model& model, const VectorSource* vectors, const v1::JobSpec& spec,
                         const std::string& prefix, FieldViolations& violations);
Objective ParseObjective(const Model& model, const VectorSource* vectors,
                         const v1::ScoreRequest& request, const std::string& prefix,
                         FieldViolations& violations);

// Adds what ValidateObjective() finds, under the names of the wire: of an objective that is a
// `neuron`, without a term's name. A field of which something was said is left out.
void CheckObjective(const Model& model, const Objective& objective, const v1::Objective& wire,
                    std::optional<int> tokens, const std::string& prefix,
                    FieldViolations& violations);

// Sets the absent fields of a valid objective, its contexts' and its fluency's, to what runs.
void FillObjective(v1::JobSpec& spec);

// Tokens that the model reads to score one prompt of `tokens` tokens: in each context the prompt,
// the suffix and a continuation, of several each with a sequence of its own.
int64_t RowsAPrompt(const Objective& objective, int tokens);

// Whether a prompt of so many tokens has a cross-entropy: something in it is predicted.
bool HasCrossEntropy(const Objective& objective, size_t tokens);

}  // namespace epo

#endif  // EPO_SERVER_CONVERT_OBJECTIVE_H_
