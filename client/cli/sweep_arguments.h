// Arguments that name many objectives or seeds at once.
#ifndef EPO_CLIENT_CLI_SWEEP_ARGUMENTS_H_
#define EPO_CLIENT_CLI_SWEEP_ARGUMENTS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "epo/v1/sweep.pb.h"

namespace epo::cli {

// "8:0-63", "8:5" or "8:0-3,7": neurons of a layer. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<std::vector<v1::NeuronRange>> ParseNeurons(std::string_view text);

// "NAME:0-63@12:post": rows of an uploaded matrix, and where the residual stream is read.
absl::StatusOr<v1::DirectionRange> ParseDirections(std::string_view text);

// "0-4", "7" or "0-4,9". At most a million.
absl::StatusOr<std::vector<uint64_t>> ParseSeeds(std::string_view text);

// The objectives that the spec's ranges make.
int64_t RangedObjectives(const v1::SweepSpec& spec);

// Puts those objectives in the ranges' place, for what a range cannot say of them: where they are
// read (absent: at the last token), and whether they are to become small. Adds the flag that gave
// each to `flags`.
void ExpandRanges(v1::SweepSpec& spec, const std::optional<v1::Position>& position, bool minimize,
                  std::vector<std::string>& flags);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_SWEEP_ARGUMENTS_H_
