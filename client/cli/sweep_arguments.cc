#include "client/cli/sweep_arguments.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <string>
#include <utility>

#include "client/cli/objective_arguments.h"

namespace epo::cli {
namespace {

constexpr uint64_t kMostSeeds = 1'000'000;

// "3" or "3-7", both ends included; false when it is neither.
template <typename Int>
bool ParseRange(absl::string_view text, std::pair<Int, Int>* range) {
  const std::vector<absl::string_view> ends = absl::StrSplit(text, absl::MaxSplits('-', 1));
  return absl::SimpleAtoi(ends.front(), &range->first) &&
         absl::SimpleAtoi(ends.back(), &range->second) && range->first <= range->second;
}

}  // namespace

absl::StatusOr<std::vector<v1::NeuronRange>> ParseNeurons(std::string_view text) {
  const absl::string_view whole(text.data(), text.size());
  const std::vector<absl::string_view> parts = absl::StrSplit(whole, absl::MaxSplits(':', 1));
  v1::NeuronRange range;
  int32_t layer = 0;
  bool good = parts.size() == 2 && absl::SimpleAtoi(parts[0], &layer);
  std::vector<v1::NeuronRange> ranges;
  for (const absl::string_view word : absl::StrSplit(parts.back(), ',')) {
    std::pair<int32_t, int32_t> ends;
    good = good && ParseRange(word, &ends);
    range.set_layer(layer);
    range.set_first(ends.first);
    range.set_last(ends.second);
    ranges.push_back(range);
  }
  if (good) return ranges;
  return absl::InvalidArgumentError(absl::StrCat(
      "'", whole, "' is not LAYER:NEURONS, as in 8:0-63 for neurons 0 to 63 of layer 8, or 8:5,9"));
}

absl::StatusOr<v1::DirectionRange> ParseDirections(std::string_view text) {
  const size_t at = text.rfind('@');
  const size_t colon = at == text.npos ? text.npos : text.rfind(':', at);
  std::pair<int32_t, int32_t> rows;
  const std::string_view middle =
      colon == text.npos ? std::string_view() : text.substr(colon + 1, at - colon - 1);
  if (colon == text.npos || !ParseRange({middle.data(), middle.size()}, &rows)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", absl::string_view(text.data(), text.size()),
                     "' is not NAME:ROWS@LAYER, as in v0123...:0-63@12 or v0123...:0-63@12:post"));
  }
  const absl::string_view matrix(text.data(), colon);
  if (absl::EndsWith(matrix, ".npy") || absl::EndsWith(matrix, ".safetensors")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", matrix, "' is a file; upload it with epo upload-vector and give the name it prints"));
  }
  auto placed = ParsePlacedVector(std::string(matrix).append(text.substr(at)));
  if (!placed.ok()) return placed.status();
  v1::DirectionRange range;
  range.mutable_direction()->set_layer(placed->place.layer);
  range.mutable_direction()->set_point(placed->place.point);
  *range.mutable_direction()->mutable_vector() = std::move(placed->vector);
  range.set_first_row(rows.first);
  range.set_last_row(rows.second);
  return range;
}

absl::StatusOr<std::vector<uint64_t>> ParseSeeds(std::string_view text) {
  const absl::string_view whole(text.data(), text.size());
  std::vector<uint64_t> seeds;
  for (const absl::string_view word : absl::StrSplit(whole, ',')) {
    std::pair<uint64_t, uint64_t> ends;
    if (!ParseRange(word, &ends)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", whole, "' is neither seeds nor a range of them, as in 0-4 or 1,5,7"));
    }
    if (ends.second - ends.first >= kMostSeeds - seeds.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", whole, "' are more than ", kMostSeeds, " seeds"));
    }
    for (uint64_t seed = ends.first;; ++seed) {
      seeds.push_back(seed);
      if (seed == ends.second) break;
    }
  }
  return seeds;
}

int64_t RangedObjectives(const v1::SweepSpec& spec) {
  int64_t count = 0;
  for (const v1::NeuronRange& range : spec.neurons()) {
    count += int64_t{range.last()} - range.first() + 1;
  }
  for (const v1::DirectionRange& range : spec.directions()) {
    count += int64_t{range.last_row()} - range.first_row() + 1;
  }
  return count;
}

void ExpandRanges(v1::SweepSpec& spec, const std::optional<v1::Position>& position, bool minimize,
                  std::vector<std::string>& flags) {
  const auto add = [&](v1::Term term, const char* flag) {
    v1::Objective& objective = *spec.add_objectives();
    if (minimize) objective.set_goal(v1::Objective::MINIMIZE);
    if (position.has_value()) *term.mutable_position() = *position;
    // As a range makes it.
    if (term.has_neuron() && !position.has_value()) {
      *objective.mutable_neuron() = term.neuron();
    } else {
      *objective.add_terms() = std::move(term);
    }
    flags.emplace_back(flag);
  };
  v1::Term term;
  for (const v1::NeuronRange& range : spec.neurons()) {
    term.mutable_neuron()->set_layer(range.layer());
    for (int64_t neuron = range.first(); neuron <= range.last(); ++neuron) {
      term.mutable_neuron()->set_neuron(static_cast<int32_t>(neuron));
      add(term, "--neurons");
    }
  }
  for (const v1::DirectionRange& range : spec.directions()) {
    *term.mutable_direction() = range.direction();
    for (int64_t row = range.first_row(); row <= range.last_row(); ++row) {
      term.mutable_direction()->mutable_vector()->set_row(static_cast<int32_t>(row));
      add(term, "--directions");
    }
  }
  spec.clear_neurons();
  spec.clear_directions();
}

}  // namespace epo::cli
