// The flags that say what to maximise, and between which fixed texts.
#ifndef EPO_CLIENT_CLI_OBJECTIVE_FLAGS_H_
#define EPO_CLIENT_CLI_OBJECTIVE_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/command.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

struct ObjectiveFlags {
  const CLI::App* app = nullptr;
  std::optional<int32_t> layer;
  std::optional<std::string> file, position, across;
  bool standardized = false, minimize = false, bos = false, chat = false, count_suffix = false;
  // Each may be repeated; the order on the command line is that of the terms.
  const CLI::Option *neuron = nullptr, *direction = nullptr, *feature = nullptr, *logit = nullptr,
                    *logit_difference = nullptr, *versus = nullptr, *attention = nullptr,
                    *continuation = nullptr, *cosine = nullptr, *prefix = nullptr,
                    *suffix = nullptr;
};

// Adds the flags to `app`, in the text of --help-objective; both must live until it is parsed and
// read.
void AddObjectiveFlags(CLI::App* app, ObjectiveFlags& flags);

// One of the flags that the user gave, for commands to which they do not always apply; empty for
// none.
std::string GivenObjectiveFlag(const ObjectiveFlags& flags);

// What the flags ask for: the fields of a JobSpec and of a ScoreRequest that have the same names.
struct ObjectiveRequest {
  v1::Objective objective;
  google::protobuf::RepeatedPtrField<v1::Context> contexts;
  v1::AcrossContexts across = v1::ACROSS_CONTEXTS_UNSPECIFIED;
  v1::FluencyWindow fluency_window = v1::FLUENCY_WINDOW_UNSPECIFIED;
  // The flag that gave each term; empty where that is for the field's name to tell.
  std::vector<std::string> term_flags;
};

// Reads files, and asks the server for its model's chat template where --chat wants it. Throws
// CLI::ValidationError and CLI::RequiredError, also for a flag that says nothing beside the others;
// what the server says instead of its template is in
// `status`.
ObjectiveRequest ReadObjective(const ObjectiveFlags& flags, Session& session, grpc::Status* status);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_OBJECTIVE_FLAGS_H_
