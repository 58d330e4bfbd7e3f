// How much one connection, one request and one client may take. Each limit is a flag of the server.
#ifndef EPO_SERVER_LIMITS_H_
#define EPO_SERVER_LIMITS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/field_violation.h"
#include "core/base/types.h"
#include "core/objective/objective.h"
#include "core/search/search.h"
#include "epo/v1/service.pb.h"

namespace CLI {
class App;
}

namespace epo {

struct Limits {
  // Bytes of a request.
  int message_bytes = 4 << 20;
  // Bytes of a call's metadata.
  int metadata_bytes = 16 << 10;
  // Calls under way on one connection, watches included.
  int streams_per_connection = 2048;

  // Bytes of a text, whatever it is for.
  int text_bytes = 1 << 20;
  // Tokens of a prompt and of what stands around it. The model's context bounds them too.
  int tokens = 8192;
  // Slots of a population.
  int population = 1024;
  // Population x children a parent: prompts that a step scores.
  int children = 1 << 16;
  int iterations = 1'000'000;
  int top_k = 1 << 16;
  // Jobs of a sweep.
  int sweep_jobs = 10'000;
  // Prompts of one Score call.
  int score_prompts = 1024;
  // Bytes of a file with vectors. A message's limit bounds them too.
  int vector_bytes = 4 << 20;

  // Of one client, which is an API key's name or, on a server without keys, a peer's address; but
  // jobs without a client are all of one.
  // Jobs that are queued or paused.
  int waiting_jobs_per_client = 10'000;
  // Vectors and matrices that it was the first to upload.
  int vectors_per_client = 1000;
  // Watches and histories under way.
  int streams_per_client = 2048;
  // Calls a second in the long run; twice as many may come at once.
  int calls_per_second_per_client = 1000;
};

// The flags, which fill `limits`.
void AddLimitOptions(CLI::App& app, Limits& limits);

// Each of these adds what is over a limit to `violations`; a field that is already there is left
// out.

// For before texts are tokenized.
void CheckText(const std::string& text, const std::string& field, const Limits& limits,
               FieldViolations& violations);
void CheckTexts(const google::protobuf::RepeatedPtrField<v1::Prompt>& prompts,
                const std::string& path, const Limits& limits, FieldViolations& violations);
// All texts of a job.
void CheckObjectiveTexts(const v1::Objective& objective, const std::string& path,
                         const Limits& limits, FieldViolations& violations);
void CheckJobTexts(const v1::JobSpec& spec, const std::string& path, const Limits& limits,
                   FieldViolations& violations);
// The number of prompts of a Score call and its texts.
void CheckScoreTexts(const v1::ScoreRequest& request, const Limits& limits,
                     FieldViolations& violations);
// For after: the prompts of a Score call, and a job's search with its defaults.
void CheckScore(const std::vector<Prompt>& prompts, const Limits& limits,
                FieldViolations& violations);
void CheckSearch(const SearchOptions& options, const std::string& path, const Limits& limits,
                 FieldViolations& violations);
// The contexts, which are the field `path`, with a prompt of `tokens` tokens in them.
void CheckContexts(const Objective& objective, int64_t tokens, const std::string& path,
                   const Limits& limits, FieldViolations& violations);

// The number of a sweep's jobs, which has `objectives` objectives, most of them in
// `objectives_field`, and `seeds` seeds. At least one of each.
void CheckSweepSize(int64_t objectives, const std::string& objectives_field, int64_t seeds,
                    const std::string& seeds_field, const Limits& limits,
                    FieldViolations& violations);

}  // namespace epo

#endif  // EPO_SERVER_LIMITS_H_
