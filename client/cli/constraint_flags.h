// The flags that say which prompts a search may not hold.
#ifndef EPO_CLIENT_CLI_CONSTRAINT_FLAGS_H_
#define EPO_CLIENT_CLI_CONSTRAINT_FLAGS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "epo/v1/job.pb.h"

namespace epo::cli {

struct ConstraintFlags {
  bool allow_special_tokens = false;
  bool ascii = false, decodable = false, retokenize = false;
  std::optional<std::string> ban_regex, ban_ids, freeze;
  std::optional<double> max_cross_entropy;
  const CLI::Option* ban = nullptr;
};

// Adds the flags to `app`, in the text of --help-constraints; both must live until it is parsed and
// read.
void AddConstraintFlags(CLI::App* app, ConstraintFlags& flags);

// Puts what the user gave into `spec`. Throws CLI::ValidationError.
void SetConstraints(const ConstraintFlags& flags, v1::JobSpec& spec);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_CONSTRAINT_FLAGS_H_
