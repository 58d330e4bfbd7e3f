#include "server/limits.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace epo {
namespace {

struct Flag {
  const char* name;
  int Limits::*limit;
  const char* description;
};

constexpr Flag kMessageBytes = {"--max-message-bytes", &Limits::message_bytes, "A request's bytes"};
constexpr Flag kMetadataBytes = {"--max-metadata-bytes", &Limits::metadata_bytes,
                                 "A call's metadata, in bytes"};
constexpr Flag kStreamsPerConnection = {"--max-streams-per-connection",
                                        &Limits::streams_per_connection,
                                        "Calls under way on a connection"};
constexpr Flag kTextBytes = {"--max-text-bytes", &Limits::text_bytes, "A text's bytes"};
constexpr Flag kTokens = {"--max-tokens", &Limits::tokens, "A prompt's tokens"};
constexpr Flag kPopulation = {"--max-population", &Limits::population, "A job's population"};
constexpr Flag kChildren = {"--max-children", &Limits::children,
                            "A job's population times its children a parent"};
constexpr Flag kIterations = {"--max-iterations", &Limits::iterations, "A job's iterations"};
constexpr Flag kTopK = {"--max-top-k", &Limits::top_k, "A job's top_k"};
constexpr Flag kScorePrompts = {"--max-score-prompts", &Limits::score_prompts,
                                "Prompts of a score call"};
constexpr Flag kWaitingJobs = {"--max-queued-jobs-per-client", &Limits::waiting_jobs_per_client,
                               "A client's jobs that are queued or paused"};
constexpr Flag kStreamsPerClient = {"--max-streams-per-client", &Limits::streams_per_client,
                                    "A client's watches and histories under way"};
constexpr Flag kCallsPerSecond = {"--max-requests-per-second-per-client",
                                  &Limits::calls_per_second_per_client,
                                  "A client's calls a second, in the long run"};

bool Reported(const FieldViolations& violations, const std::string& field) {
  return std::any_of(violations.begin(), violations.end(),
                     [&](const FieldViolation& violation) { return violation.field == field; });
}

void Check(int64_t value, const Flag& flag, const Limits& limits, const std::string& what,
           const std::string& field, FieldViolations& violations) {
  const int limit = limits.*flag.limit;
  if (value <= limit || Reported(violations, field)) return;
  violations.push_back(
      {field, absl::StrCat(what, ", but this server takes at most ", limit, " (", flag.name, ")")});
}

}  // namespace

void AddLimitOptions(CLI::App& app, Limits& limits) {
  for (const Flag& flag : {kMessageBytes, kMetadataBytes, kStreamsPerConnection, kTextBytes,
                           kTokens, kPopulation, kChildren, kIterations, kTopK, kScorePrompts,
                           kWaitingJobs, kStreamsPerClient, kCallsPerSecond}) {
    app.add_option(flag.name, limits.*flag.limit, flag.description)
        ->check(CLI::Range(1, std::numeric_limits<int>::max()).description(""))
        ->type_name("N")
        ->capture_default_str()
        ->group("Limits");
  }
}

void CheckText(const std::string& text, const std::string& field, const Limits& limits,
               FieldViolations& violations) {
  Check(static_cast<int64_t>(text.size()), kTextBytes, limits,
        absl::StrCat("is a text of ", text.size(), " bytes"), field, violations);
}

void CheckTexts(const google::protobuf::RepeatedPtrField<v1::Prompt>& prompts,
                const std::string& path, const Limits& limits, FieldViolations& violations) {
  for (int i = 0; i < prompts.size(); ++i) {
    if (!prompts[i].has_text()) continue;
    CheckText(prompts[i].text(), absl::StrCat(path, "[", i, "]"), limits, violations);
  }
}

void CheckScoreTexts(const v1::ScoreRequest& request, const Limits& limits,
                     FieldViolations& violations) {
  Check(request.prompts_size(), kScorePrompts, limits,
        absl::StrCat("has ", request.prompts_size(), " entries"), "prompts", violations);
  CheckTexts(request.prompts(), "prompts", limits, violations);
}

void CheckScore(const std::vector<PrepareRequest>& requests, const Limits& limits,
                FieldViolations& violations) {
  for (size_t i = 0; i < requests.size(); ++i) {
    const size_t tokens = requests[i].prompt.size();
    Check(static_cast<int64_t>(tokens), kTokens, limits, absl::StrCat("has ", tokens, " tokens"),
          absl::StrCat("prompts[", i, "]"), violations);
  }
}

void CheckSearch(const SearchOptions& options, const std::string& path, const Limits& limits,
                 FieldViolations& violations) {
  const auto check = [&](int64_t value, const Flag& flag, const char* field) {
    Check(value, flag, limits, absl::StrCat("is ", value), absl::StrCat(path, ".", field),
          violations);
  };
  check(options.tokens, kTokens, "tokens");
  check(options.population, kPopulation, "population");
  // Of a bad factor the product says nothing new.
  if (!Reported(violations, absl::StrCat(path, ".population"))) {
    const int64_t children = int64_t{options.population} * options.children_per_parent;
    Check(children, kChildren, limits, absl::StrCat("times population is ", children),
          absl::StrCat(path, ".children_per_parent"), violations);
  }
  check(options.iterations, kIterations, "iterations");
  check(options.top_k, kTopK, "top_k");
}

}  // namespace epo
