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
constexpr Flag kTokens = {"--max-tokens", &Limits::tokens, "A prompt's tokens, contexts included"};
constexpr Flag kPopulation = {"--max-population", &Limits::population, "A job's population"};
constexpr Flag kChildren = {"--max-children", &Limits::children,
                            "A job's population times its children a parent"};
constexpr Flag kIterations = {"--max-iterations", &Limits::iterations, "A job's iterations"};
constexpr Flag kTopK = {"--max-top-k", &Limits::top_k, "A job's top_k"};
constexpr Flag kSweepJobs = {"--max-sweep-jobs", &Limits::sweep_jobs, "A sweep's jobs"};
constexpr Flag kScorePrompts = {"--max-score-prompts", &Limits::score_prompts,
                                "Prompts of a score call"};
constexpr Flag kVectorBytes = {"--max-vector-bytes", &Limits::vector_bytes,
                               "An uploaded vector's bytes"};
constexpr Flag kVectors = {"--max-vectors", &Limits::vectors_per_client,
                           "A client's uploaded vectors and matrices"};
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
  for (const Flag& flag :
       {kMessageBytes, kMetadataBytes, kStreamsPerConnection, kTextBytes, kTokens, kPopulation,
        kChildren, kIterations, kTopK, kSweepJobs, kScorePrompts, kVectorBytes, kVectors,
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

namespace {

void CheckPrompt(const v1::Prompt& prompt, const std::string& field, const Limits& limits,
                 FieldViolations& violations) {
  if (prompt.has_text()) CheckText(prompt.text(), field, limits, violations);
}

void CheckContextTexts(const google::protobuf::RepeatedPtrField<v1::Context>& contexts,
                       const std::string& path, const Limits& limits, FieldViolations& violations) {
  for (int i = 0; i < contexts.size(); ++i) {
    const std::string context_path = absl::StrCat(path, "[", i, "]");
    CheckPrompt(contexts[i].prefix(), context_path + ".prefix", limits, violations);
    CheckPrompt(contexts[i].suffix(), context_path + ".suffix", limits, violations);
  }
}

}  // namespace

void CheckObjectiveTexts(const v1::Objective& objective, const std::string& path,
                         const Limits& limits, FieldViolations& violations) {
  for (int i = 0; i < objective.terms_size(); ++i) {
    const v1::Term& term = objective.terms(i);
    const std::string term_path = absl::StrCat(path, ".terms[", i, "]");
    CheckText(term.logit().token().text(), term_path + ".logit.token", limits, violations);
    const v1::LogitDifferenceTerm& difference = term.logit_difference();
    CheckText(difference.token().text(), term_path + ".logit_difference.token", limits, violations);
    CheckText(difference.other().text(), term_path + ".logit_difference.other", limits, violations);
    CheckPrompt(term.continuation().text(), term_path + ".continuation.text", limits, violations);
    CheckPrompt(term.cosine().text(), term_path + ".cosine.text", limits, violations);
  }
}

void CheckJobTexts(const v1::JobSpec& spec, const std::string& path, const Limits& limits,
                   FieldViolations& violations) {
  CheckTexts(spec.initial_prompts(), path + ".initial_prompts", limits, violations);
  CheckObjectiveTexts(spec.objective(), path + ".objective", limits, violations);
  CheckContextTexts(spec.contexts(), path + ".contexts", limits, violations);
}

void CheckScoreTexts(const v1::ScoreRequest& request, const Limits& limits,
                     FieldViolations& violations) {
  Check(request.prompts_size(), kScorePrompts, limits,
        absl::StrCat("has ", request.prompts_size(), " entries"), "prompts", violations);
  CheckTexts(request.prompts(), "prompts", limits, violations);
  CheckObjectiveTexts(request.objective(), "objective", limits, violations);
  CheckContextTexts(request.contexts(), "contexts", limits, violations);
}

void CheckScore(const std::vector<Prompt>& prompts, const Limits& limits,
                FieldViolations& violations) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    const size_t tokens = prompts[i].size();
    Check(static_cast<int64_t>(tokens), kTokens, limits, absl::StrCat("has ", tokens, " tokens"),
          absl::StrCat("prompts[", i, "]"), violations);
  }
}

void CheckContexts(const Objective& objective, int64_t tokens, const std::string& path,
                   const Limits& limits, FieldViolations& violations) {
  for (size_t i = 0; i < objective.contexts.size(); ++i) {
    const Context& context = objective.contexts[i];
    const int64_t all =
        tokens + static_cast<int64_t>(context.prefix.size() + context.suffix.size());
    Check(all, kTokens, limits, absl::StrCat("and a prompt have ", all, " tokens together"),
          absl::StrCat(path, "[", i, "]"), violations);
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

void CheckSweepSize(int64_t objectives, const std::string& objectives_field, int64_t seeds,
                    const std::string& seeds_field, const Limits& limits,
                    FieldViolations& violations) {
  for (const Flag& flag : {kSweepJobs, kWaitingJobs}) {
    Check(objectives, flag, limits, absl::StrCat("makes ", objectives, " objectives"),
          objectives_field, violations);
    // Of a bad factor the product says nothing new.
    if (Reported(violations, objectives_field)) return;
    Check(objectives * seeds, flag, limits,
          absl::StrCat("times ", objectives, " objectives is ", objectives * seeds, " jobs"),
          seeds_field, violations);
  }
}

}  // namespace epo
