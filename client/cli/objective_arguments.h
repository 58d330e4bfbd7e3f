// The shorthands in which the command line says what to maximise. Pure functions, but for those
// that read a file.
#ifndef EPO_CLIENT_CLI_OBJECTIVE_ARGUMENTS_H_
#define EPO_CLIENT_CLI_OBJECTIVE_ARGUMENTS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "epo/v1/job.pb.h"
#include "epo/v1/objective.pb.h"

namespace epo::cli {

// Each gives INVALID_ARGUMENT with what is wrong and how it is written.

// "8:1", or "1" with a layer given otherwise.
absl::StatusOr<v1::NeuronObjective> ParseNeuron(std::string_view text,
                                                std::optional<int32_t> layer);

// "LAYER:HEAD:KEY".
absl::StatusOr<v1::AttentionTerm> ParseAttention(std::string_view text);

// "-1", "max", "mean:2:5", each perhaps behind "prompt:".
absl::StatusOr<v1::Position> ParsePosition(std::string_view text);

// "id:464", else a text.
v1::TokenReference ParseToken(std::string_view text);

// A layer and a point of its residual stream: "12", "12:pre", "12:mid", "12:post".
struct Place {
  int32_t layer = 0;
  v1::ResidualPoint point = v1::RESIDUAL_POINT_UNSPECIFIED;
};

// "vector.npy@12:post": a file, which is read, or the name of an uploaded vector, and perhaps a row
// (":3") of it, before the place.
struct PlacedVector {
  v1::Vector vector;
  Place place;
};
absl::StatusOr<PlacedVector> ParsePlacedVector(std::string_view text);

// The same, or any other text than a file's or vector's name before the place.
absl::StatusOr<v1::CosineTerm> ParseCosine(std::string_view text);

// An Objective as proto3 JSON. Errors name the file and, where it is known, the line.
absl::StatusOr<v1::Objective> ReadObjectiveFile(const std::string& path);

// What stands before and after a user's message in a conversation of one, up to where the model
// answers, by a model's chat template. UNIMPLEMENTED for a template other than ChatML's usual one.
absl::StatusOr<v1::Context> ChatContext(std::string_view chat_template);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_OBJECTIVE_ARGUMENTS_H_
