#include "core/objective/objective.h"

namespace epo {

Objective NeuronObjective(int layer, int neuron) {
  Objective objective;
  objective.terms.push_back({.kind = NeuronTerm{layer, neuron}});
  return objective;
}

}  // namespace epo
