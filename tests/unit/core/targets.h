// Targets for tests of the evaluator.
#ifndef EPO_TESTS_UNIT_CORE_TARGETS_H_
#define EPO_TESTS_UNIT_CORE_TARGETS_H_

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "core/evaluate/target.h"

namespace epo {

// Of a valid objective.
inline std::shared_ptr<const Target> MakeTarget(const Model& model, const Objective& objective) {
  const auto target = Target::Create(model, objective);
  EXPECT_TRUE(target.ok()) << target.status();
  return *target;
}

// One neuron at the last token.
inline std::shared_ptr<const Target> NeuronTarget(const Model& model, int layer, int neuron) {
  return MakeTarget(model, NeuronObjective(layer, neuron));
}

// Objectives that between them read every site in every way, some of them behind a prefix, before a
// suffix, or in two contexts.
inline std::vector<Objective> ManyObjectives(const Model& model) {
  std::vector<float> values(model.config().hidden_size);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) - 2.5F;
  const auto vector = std::make_shared<const std::vector<float>>(values);
  const Position mean{.reduce = Position::Reduce::kMean, .first = -3, .last = -1};
  const Position second{.frame = Position::Frame::kPrompt, .first = 1};

  std::vector<Objective> objectives;
  objectives.push_back(NeuronObjective(1, 3));
  Objective& logits = objectives.emplace_back();
  logits.terms = {{.kind = LogitDifferenceTerm{.token = 7}},
                  {.kind = LogitTerm{.token = 9}, .position = second, .weight = 0.5}};
  logits.contexts = {{.prefix = {5, 6, 7, 8}, .suffix = {9, 10}}};
  Objective& inside = objectives.emplace_back();
  inside.terms = {{.kind = AttentionTerm{.layer = 1, .head = 1, .key = -3}, .position = mean},
                  {.kind = OutputTerm{.layer = 0, .head = 1, .vector = vector}},
                  {.kind = DirectionTerm{.layer = 1, .vector = vector, .standardise = true}}};
  Objective& text = objectives.emplace_back();
  text.terms = {
      {.kind = ContinuationTerm{.tokens = {3, 4}}},
      {.kind = ContinuationTerm{.tokens = {5}}},
      {.kind = CosineTerm{.layer = 0, .point = ResidualPoint::kPostAttention, .vector = vector}}};
  text.contexts = {{.prefix = {11, 12, 13}, .suffix = {}}, {.prefix = {}, .suffix = {14}}};
  return objectives;
}

}  // namespace epo

#endif  // EPO_TESTS_UNIT_CORE_TARGETS_H_
