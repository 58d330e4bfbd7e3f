// The flags that say what to maximise, and between which fixed texts.
#ifndef EPO_CLIENT_CLI_OBJECTIVE_FLAGS_H_
#define EPO_CLIENT_CLI_OBJECTIVE_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/command.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

// Of the options that say what to maximise.
inline constexpr char kObjectiveTopic[] = "objective";

// Where terms are read, and whether they are to become small.
struct ReadingFlags {
  std::optional<std::string> position;
  bool minimize = false;
};

// Between which fixed texts.
struct ContextFlags {
  std::optional<std::string> across;
  bool bos = false, chat = false, count_suffix = false;
  // Each may be repeated.
  const CLI::Option *prefix = nullptr, *suffix = nullptr;
};

struct ObjectiveFlags {
  const CLI::App* app = nullptr;
  std::optional<int32_t> layer;
  std::optional<std::string> file;
  bool standardized = false;
  ReadingFlags reading;
  ContextFlags contexts;
  // Each may be repeated; the order on the command line is that of the terms.
  const CLI::Option *neuron = nullptr, *direction = nullptr, *feature = nullptr, *logit = nullptr,
                    *logit_difference = nullptr, *versus = nullptr, *attention = nullptr,
                    *continuation = nullptr, *cosine = nullptr;
};

// Add flags to `app`, and to `topic`, which is for AddTopic(); app and flags must live until they
// are parsed and read.
void AddReadingFlags(CLI::App* app, ReadingFlags& flags, std::vector<CLI::Option*>& topic);
void AddContextFlags(CLI::App* app, ContextFlags& flags, std::vector<CLI::Option*>& topic);

// Adds the flags to `app`, in the text of --help-objective; both must live until it is parsed and
// read.
void AddObjectiveFlags(CLI::App* app, ObjectiveFlags& flags);

// One of the flags that the user gave, for commands to which they do not always apply; empty for
// none.
std::string GivenObjectiveFlag(const ObjectiveFlags& flags);

// What flags ask for: the fields of a JobSpec, a ScoreRequest and an AttributeRequest that have the
// same names.
struct ContextRequest {
  google::protobuf::RepeatedPtrField<v1::Context> contexts;
  v1::AcrossContexts across = v1::ACROSS_CONTEXTS_UNSPECIFIED;
  v1::FluencyWindow fluency_window = v1::FLUENCY_WINDOW_UNSPECIFIED;
};

template <class Request>
void SetContexts(ContextRequest from, Request& request) {
  *request.mutable_contexts() = std::move(from.contexts);
  request.set_across_contexts(from.across);
  request.set_fluency_window(from.fluency_window);
}

struct ObjectiveRequest {
  v1::Objective objective;
  ContextRequest contexts;
  // The flag that gave each term; empty where that is for the field's name to tell.
  std::vector<std::string> term_flags;
};

// Asks the server for its model's chat template where --chat wants it. Throws CLI::ValidationError,
// also for a flag that says nothing beside the others; what the server says instead of its template
// is in `status`.
ContextRequest ReadContexts(const ContextFlags& flags, Session& session, grpc::Status* status);

// Reads files, and contexts as ReadContexts() does. Throws CLI::ValidationError and
// CLI::RequiredError.
ObjectiveRequest ReadObjective(const ObjectiveFlags& flags, Session& session, grpc::Status* status);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_OBJECTIVE_FLAGS_H_
