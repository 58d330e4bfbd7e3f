// Targets for tests of the evaluator.
#ifndef EPO_TESTS_UNIT_CORE_TARGETS_H_
#define EPO_TESTS_UNIT_CORE_TARGETS_H_

#include <gtest/gtest.h>

#include <memory>

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

}  // namespace epo

#endif  // EPO_TESTS_UNIT_CORE_TARGETS_H_
