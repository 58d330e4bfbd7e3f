// The one place where wire types become core types, and back.
#ifndef EPO_SERVER_CONVERT_H_
#define EPO_SERVER_CONVERT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/field_violation.h"
#include "core/evaluate/evaluator.h"
#include "core/model/allowed_tokens.h"
#include "core/model/model.h"
#include "core/objective/objective.h"
#include "core/search/run.h"
#include "core/search/search.h"
#include "epo/v1/job.pb.h"
#include "epo/v1/model.pb.h"
#include "epo/v1/service.pb.h"
#include "server/convert_objective.h"

namespace epo {

// A search that the core can run: valid for the served model.
struct SearchSpec {
  Objective objective;
  SearchOptions options;
};

// What a score call asks for: valid for the served model.
struct ScoreSpec {
  Objective objective;
  // In the request's order.
  std::vector<Prompt> prompts;
};

// Thread-safe. Errors are INVALID_ARGUMENT with every bad field, see InvalidFields().
class Converter {
 public:
  // Both must outlive the converter. Without `vectors` no objective may name any.
  explicit Converter(const Model& model, const VectorSource* vectors = nullptr);

  const Model& model() const { return model_; }

  // Adds what is wrong with `spec` to `violations` under `path`. The result is valid only if
  // nothing was added.
  SearchSpec ParseSpec(const v1::JobSpec& spec, const std::string& path,
                       FieldViolations& violations) const;

  // The objective of a spec that is otherwise the one that `base` was made of: one more of a sweep.
  // Fields are named from the spec, "objective.neuron.layer".
  Objective ParseSweepObjective(const v1::Objective& objective, const SearchSpec& base,
                                FieldViolations& violations) const;

  // `spec` with every absent field set to what runs. `parsed` is what ParseSpec made of it.
  static v1::JobSpec EffectiveSpec(const v1::JobSpec& spec, const SearchSpec& parsed);

  absl::StatusOr<ScoreSpec> ParseScore(const v1::ScoreRequest& request) const;
  // Adds what is wrong to `violations`; the result is valid only if nothing was added.
  ScoreSpec ParseScore(const v1::ScoreRequest& request, FieldViolations& violations) const;

  // The tokens that may be proposed unless a job says otherwise.
  const std::shared_ptr<const AllowedTokens>& allowed() const { return allowed_; }

  // Of a prompt in which something is predicted, unless `has_cross_entropy` is false.
  v1::ScoredPrompt ToScoredPrompt(const Prompt& ids, Score score,
                                  bool has_cross_entropy = true) const;
  v1::Frontier ToFrontier(const std::vector<ScoredPrompt>& points) const;
  // `seconds` and `evaluations` are left for the scheduler to fill.
  v1::Step ToStep(const StepReport& report) const;
  v1::TokenizeResponse ToTokens(const std::string& text) const;
  v1::Model ToModelInfo() const;

  static v1::Iteration ToIteration(const Iteration& iteration);
  // The pool of a stored iteration.
  static std::vector<ScoredPrompt> FromIteration(const v1::Iteration& iteration);

 private:
  // Why the objective of `request` cannot be read in prompts of so many tokens; empty when it can.
  std::string WhyUnreadable(const Objective& objective, const v1::ScoreRequest& request,
                            size_t tokens) const;

  const Model& model_;
  const VectorSource* const vectors_;
  // Without and with special tokens.
  std::shared_ptr<const AllowedTokens> allowed_;
  std::shared_ptr<const AllowedTokens> allowed_with_special_;
};

}  // namespace epo

#endif  // EPO_SERVER_CONVERT_H_
