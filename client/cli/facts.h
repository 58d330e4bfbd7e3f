// What people ask of a job or sweep, by name. Pure functions.
#ifndef EPO_CLIENT_CLI_FACTS_H_
#define EPO_CLIENT_CLI_FACTS_H_

#include <string>
#include <utility>
#include <vector>

#include "epo/v1/job.pb.h"
#include "epo/v1/sweep.pb.h"

namespace epo::cli {

// What something is called and what it is, escaped for a terminal.
using Facts = std::vector<std::pair<std::string, std::string>>;

Facts JobFacts(const v1::Job& job);
Facts SweepFacts(const v1::Sweep& sweep);

// The facts as a two-column list.
std::vector<std::string> FactLines(const Facts& facts);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_FACTS_H_
