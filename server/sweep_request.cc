#include "server/sweep_request.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/convert_objective.h"
#include "server/job_request.h"
#include "server/status.h"

namespace epo {
namespace {

// What the specs of a sweep's jobs may take together, each whole.
constexpr int64_t kMaxSpecBytes = int64_t{128} << 20;

std::string Indexed(const char* path, int i) { return absl::StrCat(path, "[", i, "]"); }

v1::Objective NeuronOf(const v1::NeuronRange& range) {
  v1::Objective objective;
  objective.mutable_neuron()->set_layer(range.layer());
  objective.mutable_neuron()->set_neuron(range.first());
  return objective;
}

v1::Objective DirectionOf(const v1::DirectionRange& range) {
  v1::Objective objective;
  v1::DirectionTerm& direction = *objective.add_terms()->mutable_direction();
  direction = range.direction();
  direction.mutable_vector()->set_row(range.first_row());
  return objective;
}

// What an objective looks like, if there is any.
v1::Objective AnyOf(const v1::SweepSpec& spec) {
  if (!spec.objectives().empty()) return spec.objectives(0);
  if (!spec.neurons().empty()) return NeuronOf(spec.neurons(0));
  return spec.directions().empty() ? v1::Objective() : DirectionOf(spec.directions(0));
}

void CheckDirections(const v1::SweepSpec& spec, FieldViolations& violations) {
  for (int i = 0; i < spec.directions_size(); ++i) {
    const v1::DirectionRange& range = spec.directions(i);
    const std::string path = Indexed("spec.directions", i);
    if (range.direction().vector().name().empty()) {
      violations.push_back({path + ".direction.vector.name", "is required: an uploaded matrix"});
    }
    if (range.direction().vector().has_row()) {
      violations.push_back(
          {path + ".direction.vector.row", "leave it out; give first_row and last_row"});
    }
    if (range.first_row() < 0) {
      violations.push_back(
          {path + ".first_row", absl::StrCat("is ", range.first_row(), "; give 0 or more")});
    }
    if (range.last_row() < range.first_row()) {
      violations.push_back(
          {path + ".last_row",
           absl::StrCat("is ", range.last_row(), ", below first_row, ", range.first_row())});
    }
  }
}

void CheckNeurons(const v1::SweepSpec& spec, const ModelConfig& config,
                  FieldViolations& violations) {
  for (int i = 0; i < spec.neurons_size(); ++i) {
    const v1::NeuronRange& range = spec.neurons(i);
    const auto check = [&](const char* field, int64_t value, int64_t least, int64_t end) {
      if (value >= least && value < end) return;
      violations.push_back(
          {absl::StrCat(Indexed("spec.neurons", i), ".", field),
           absl::StrCat("is ", value, ", but must be from ", least, " to ", end - 1)});
    };
    check("layer", range.layer(), 0, config.layers);
    check("first", range.first(), 0, config.intermediate_size);
    const bool has_first = range.first() >= 0 && range.first() < config.intermediate_size;
    check("last", range.last(), has_first ? range.first() : 0, config.intermediate_size);
  }
}

void CheckSeeds(const v1::SweepSpec& spec, FieldViolations& violations) {
  absl::flat_hash_map<uint64_t, int> first;
  for (int i = 0; i < spec.seeds_size(); ++i) {
    const auto [it, is_new] = first.try_emplace(spec.seeds(i), i);
    if (is_new) continue;
    violations.push_back(
        {Indexed("spec.seeds", i), absl::StrCat("is ", spec.seeds(i), ", as is seeds[", it->second,
                                                "]; give each seed once")});
  }
}

// How many objectives and seeds there are, judged without making any.
void CheckSize(const v1::SweepSpec& spec, const Limits& limits, FieldViolations& violations) {
  int64_t neurons = 0;
  for (const v1::NeuronRange& range : spec.neurons()) {
    neurons += std::max(int64_t{0}, int64_t{range.last()} - range.first() + 1);
  }
  int64_t directions = 0;
  for (const v1::DirectionRange& range : spec.directions()) {
    directions += std::max(int64_t{0}, int64_t{range.last_row()} - range.first_row() + 1);
  }
  const int64_t objectives = spec.objectives_size() + neurons + directions;
  if (spec.objectives().empty() && spec.neurons().empty() && spec.directions().empty()) {
    violations.push_back(
        {"spec.objectives", "is required; give objectives, neurons or directions"});
    return;
  }
  const char* most = "spec.objectives";
  if (neurons > spec.objectives_size()) most = "spec.neurons";
  if (directions > std::max<int64_t>(neurons, spec.objectives_size())) most = "spec.directions";
  const int64_t seeds = std::max(1, spec.seeds_size());
  const size_t before = violations.size();
  CheckSweepSize(objectives, most, seeds, "spec.seeds", limits, violations);
  if (violations.size() > before) return;
  int64_t bytes = objectives * seeds * static_cast<int64_t>(spec.job().ByteSizeLong());
  for (const v1::Objective& objective : spec.objectives()) {
    bytes += seeds * static_cast<int64_t>(objective.ByteSizeLong());
  }
  if (bytes <= kMaxSpecBytes) return;
  violations.push_back(
      {"spec", absl::StrCat("its jobs' specs would take ", bytes, " bytes, and may take ",
                            kMaxSpecBytes, "; make it several sweeps")});
}

// What all jobs have in common.
SearchSpec CheckBase(const v1::SweepSpec& spec, const v1::Objective& any,
                     const Converter& converter, const Limits& limits,
                     FieldViolations& violations) {
  if (spec.job().has_objective()) {
    violations.push_back({"spec.job.objective", "leave it out; give spec.objectives"});
  }
  if (!spec.job().initial_job().empty()) {
    violations.push_back({"spec.job.initial_job", "leave it out; give initial_prompts"});
  }
  if (spec.job().has_seed()) {
    violations.push_back({"spec.job.seed", "leave it out; give spec.seeds"});
  }
  v1::JobSpec job = spec.job();
  job.clear_initial_job();
  *job.mutable_objective() = any;
  FieldViolations found;
  SearchSpec base = CheckJobSpec(job, "spec.job", converter, limits, found);
  for (FieldViolation& violation : found) {
    // It is checked at its own place.
    if (absl::StartsWith(violation.field, "spec.job.objective")) continue;
    violations.push_back(std::move(violation));
  }
  return base;
}

// What is wrong with objective "objective", under the name of what it was made of.
using Rename = std::function<void(FieldViolation&)>;

// `from` at the beginning of the field's name becomes `to`; false without it.
bool Replace(FieldViolation& violation, absl::string_view from, const std::string& to) {
  absl::string_view rest = violation.field;
  if (!absl::ConsumePrefix(&rest, from)) return false;
  violation.field = absl::StrCat(to, rest);
  return true;
}

// Of row `row` of the range that stands under `path`.
void RenameDirection(const v1::DirectionRange& range, const std::string& path, int row,
                     FieldViolation& violation) {
  if (!Replace(violation, "objective.terms[0].direction", path + ".direction")) {
    Replace(violation, "objective", path);
    return;
  }
  const std::string vector = path + ".direction.vector";
  if (violation.field == vector + ".row") {
    // The first row that the matrix does not have stands for all up to the last.
    const bool first = row == range.first_row();
    absl::string_view rest = violation.description;
    absl::ConsumePrefix(&rest, absl::StrCat("is ", row));
    violation = {path + (first ? ".first_row" : ".last_row"),
                 absl::StrCat("is ", first ? row : range.last_row(), rest)};
  } else if (violation.field == vector && !absl::StartsWith(violation.description, "names ")) {
    violation.description = absl::StrCat("row ", row, " ", violation.description);
  }
}

// Adds the sweep's objectives in its order, each checked in what all have in common.
void Expand(const v1::SweepSpec& spec, const Converter& converter, const Limits& limits,
            SweepPlan& plan, FieldViolations& violations) {
  v1::JobSpec one;
  const auto add = [&](const Rename& rename) {
    FieldViolations found;
    CheckObjectiveTexts(one.objective(), "objective", limits, found);
    if (found.empty()) {
      plan.objectives.push_back(converter.ParseSweepObjective(one.objective(), plan.base, found));
    }
    for (FieldViolation& violation : found) {
      rename(violation);
      violations.push_back(std::move(violation));
    }
    v1::JobSpec filled = one;
    FillObjective(filled);
    plan.wire_objectives.push_back(std::move(*filled.mutable_objective()));
  };
  for (int i = 0; i < spec.objectives_size(); ++i) {
    *one.mutable_objective() = spec.objectives(i);
    add([&](FieldViolation& violation) {
      Replace(violation, "objective", Indexed("spec.objectives", i));
    });
  }
  for (int i = 0; i < spec.neurons_size(); ++i) {
    const v1::NeuronRange& range = spec.neurons(i);
    const std::string path = Indexed("spec.neurons", i);
    *one.mutable_objective() = NeuronOf(range);
    for (int neuron = range.first(); neuron <= range.last(); ++neuron) {
      one.mutable_objective()->mutable_neuron()->set_neuron(neuron);
      add([&](FieldViolation& violation) { Replace(violation, "objective", path); });
    }
  }
  for (int i = 0; i < spec.directions_size(); ++i) {
    const v1::DirectionRange& range = spec.directions(i);
    const std::string path = Indexed("spec.directions", i);
    *one.mutable_objective() = DirectionOf(range);
    v1::Vector& vector =
        *one.mutable_objective()->mutable_terms(0)->mutable_direction()->mutable_vector();
    for (int row = range.first_row(); row <= range.last_row(); ++row) {
      const size_t found = violations.size();
      vector.set_row(row);
      add([&](FieldViolation& violation) { RenameDirection(range, path, row, violation); });
      // What is wrong with one row is mostly wrong with all.
      if (violations.size() > found) break;
    }
  }
}

}  // namespace

SearchSpec SweepPlan::Search(size_t index) const {
  SearchSpec search = base;
  search.objective = objectives[index / seeds.size()];
  search.options.seed = seeds[index % seeds.size()];
  return search;
}

absl::StatusOr<SweepPlan> CheckSweepRequest(const v1::CreateSweepRequest& request,
                                            const Converter& converter, const Limits& limits) {
  FieldViolations violations;
  CheckRequestId(request.request_id(), violations);
  if (!request.has_spec()) {
    violations.push_back({"spec", "is required"});
    return InvalidFields(violations);
  }
  const v1::SweepSpec& spec = request.spec();
  const size_t before = violations.size();
  CheckSize(spec, limits, violations);
  CheckNeurons(spec, converter.model().config(), violations);
  CheckDirections(spec, violations);
  CheckSeeds(spec, violations);
  // What is too much, or no range, is not expanded.
  const bool expandable = violations.size() == before;
  SweepPlan plan;
  plan.base = CheckBase(spec, AnyOf(spec), converter, limits, violations);
  if (expandable) Expand(spec, converter, limits, plan, violations);
  if (!violations.empty()) return InvalidFields(violations);
  plan.seeds.assign(spec.seeds().begin(), spec.seeds().end());
  if (plan.seeds.empty()) plan.seeds.push_back(0);
  return plan;
}

}  // namespace epo
