// The flags that say how a search runs, whatever it maximises: what `epo submit` and `epo sweep`
// have in common.
#ifndef EPO_CLIENT_CLI_JOB_FLAGS_H_
#define EPO_CLIENT_CLI_JOB_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/constraint_flags.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

// Of the options that say where to start.
inline constexpr char kStartTopic[] = "start";

struct JobFlags {
  // Absent: the server's default.
  std::optional<int32_t> tokens, population, children, topk, iterations, restart_every;
  std::optional<double> penalty_min, penalty_max;
  std::optional<std::string> restart_penalty;
  std::optional<int32_t> priority;
  std::optional<std::string> deadline, history;
  std::string request_id;
  ConstraintFlags constraints;
  const CLI::App* app = nullptr;
  const CLI::Option* initial_text = nullptr;
  const CLI::Option* initial_ids = nullptr;
};

// Adds the flags to `app`; both must live until it is parsed and read.
void AddJobFlags(CLI::App* app, JobFlags& flags);

// What the user gave, without objective and seed: the server fills in the rest. `prompt_flags` says
// which flag gave each initial prompt. Throws CLI::ValidationError.
v1::JobSpec ToJobSpec(const JobFlags& flags, std::vector<std::string>& prompt_flags);

// --request-id, or a random UUID (version 4).
std::string RequestId(const JobFlags& flags);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_JOB_FLAGS_H_
