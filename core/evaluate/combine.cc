#include "core/evaluate/combine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace epo {
namespace {

BranchNumbers Zeros(const Plan& plan) {
  BranchNumbers zeros;
  for (const Branch& branch : plan.branches) zeros.emplace_back(branch.reads.size(), 0.0);
  return zeros;
}

// A number and its derivative with respect to what it was made of.
struct Differentiable {
  double value = 0;
  double slope = 1;
};

Differentiable Activate(const Term& term, double x) {
  const auto* feature = std::get_if<FeatureTerm>(&term.kind);
  if (feature == nullptr || feature->activation == FeatureTerm::Activation::kNone) return {x, 1};
  const double threshold =
      feature->activation == FeatureTerm::Activation::kRelu ? 0 : feature->threshold;
  // NaN stays one.
  if (x <= threshold) return {0, 0};
  return {x, 1};
}

// Each value's part in the soft-min of `values`: softmax(-values / temperature), and the soft-min.
double SoftMin(std::span<const double> values, double temperature, std::vector<double>& parts) {
  double least = std::numeric_limits<double>::infinity();
  for (const double value : values) least = std::min(least, value);
  double sum = 0;
  for (const double value : values) {
    parts.push_back(std::exp((least - value) / temperature));
    sum += parts.back();
  }
  for (double& part : parts) part /= sum;
  return least - temperature * std::log(sum / static_cast<double>(values.size()));
}

}  // namespace

double Combiner::Value(size_t term, const PlannedTerm& planned, const BranchNumbers& reads,
                       double factor, BranchNumbers* gradient) const {
  const Term& of = objective_.terms[term];
  const auto add = [&](const PlannedValue& value, double slope) {
    if (gradient == nullptr) return;
    (*gradient)[value.branch][value.plus] += factor * slope;
    if (value.minus != PlannedValue::kNone) {
      (*gradient)[value.branch][value.minus] -= factor * slope;
    }
  };
  const auto number = [&](const PlannedValue& value) {
    double x = reads[value.branch][value.plus];
    if (value.minus != PlannedValue::kNone) x -= reads[value.branch][value.minus];
    return Activate(of, x + terms_[term].constant);
  };
  // Surprisals add up to -log p.
  if (std::holds_alternative<ContinuationTerm>(of.kind)) {
    double sum = 0;
    for (const PlannedValue& value : planned.values) {
      sum -= reads[value.branch][value.plus];
      add(value, -1);
    }
    return sum;
  }
  if (of.position.reduce == Position::Reduce::kMax) {
    const PlannedValue* best = &planned.values[0];
    for (const PlannedValue& value : planned.values) {
      if (number(value).value > number(*best).value) best = &value;
    }
    const Differentiable x = number(*best);
    add(*best, x.slope);
    return x.value;
  }
  const auto count = static_cast<double>(planned.values.size());
  double sum = 0;
  for (const PlannedValue& value : planned.values) {
    const Differentiable x = number(value);
    sum += x.value;
    add(value, x.slope / count);
  }
  return sum / count;
}

Combined Combiner::Combine(const Plan& plan, const BranchNumbers& reads,
                           BranchNumbers* gradient) const {
  const size_t terms = objective_.terms.size();
  const double sign = objective_.minimize ? -1 : 1;
  Combined combined;
  combined.terms.assign(terms, 0.0);

  // The combination in each context, and what each term counts in it.
  std::vector<double> values;
  std::vector<std::vector<double>> slopes;
  for (size_t context = 0; context < plan.contexts; ++context) {
    std::vector<double> weighted;
    std::vector<double> slope;
    for (size_t t = 0; t < terms; ++t) {
      const double value = Value(t, plan.terms[context * terms + t], reads, 0, nullptr);
      combined.terms[t] += value / static_cast<double>(plan.contexts);
      slope.push_back(objective_.terms[t].weight / scales_[t]);
      weighted.push_back(slope.back() * value);
    }
    double total = 0;
    if (objective_.combine == Objective::Combine::kSoftMin) {
      std::vector<double> parts;
      total = SoftMin(weighted, objective_.temperature, parts);
      for (size_t t = 0; t < terms; ++t) slope[t] *= parts[t];
    } else {
      for (const double value : weighted) total += value;
    }
    values.push_back(sign * total);
    slopes.push_back(std::move(slope));
  }

  std::vector<double> across(plan.contexts, 1 / static_cast<double>(plan.contexts));
  if (objective_.across == Objective::Across::kMin) {
    const auto least = std::min_element(values.begin(), values.end());
    across.assign(plan.contexts, 0);
    across[least - values.begin()] = 1;
  }
  for (size_t context = 0; context < plan.contexts; ++context) {
    // 0 times infinity would be NaN.
    if (across[context] != 0) combined.target += across[context] * values[context];
  }
  if (gradient == nullptr) return combined;
  *gradient = Zeros(plan);
  for (size_t context = 0; context < plan.contexts; ++context) {
    for (size_t t = 0; t < terms; ++t) {
      Value(t, plan.terms[context * terms + t], reads, sign * across[context] * slopes[context][t],
            gradient);
    }
  }
  return combined;
}

bool Combiner::IsLinear() const {
  if (objective_.combine != Objective::Combine::kSum) return false;
  if (objective_.contexts.size() > 1 && objective_.across == Objective::Across::kMin) return false;
  return std::all_of(objective_.terms.begin(), objective_.terms.end(), [](const Term& term) {
    const auto* feature = std::get_if<FeatureTerm>(&term.kind);
    const bool threshold =
        feature != nullptr && feature->activation != FeatureTerm::Activation::kNone;
    return !threshold && term.position.reduce != Position::Reduce::kMax;
  });
}

std::optional<BranchNumbers> Combiner::ConstantGradient(const Plan& plan) const {
  if (!IsLinear()) return std::nullopt;
  BranchNumbers gradient;
  Combine(plan, Zeros(plan), &gradient);
  return gradient;
}

}  // namespace epo
