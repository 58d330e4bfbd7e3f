// What a job maximises, in a few words.
#ifndef EPO_CLIENT_CLI_OBJECTIVE_TEXT_H_
#define EPO_CLIENT_CLI_OBJECTIVE_TEXT_H_

#include <string>

#include "epo/v1/objective.pb.h"

namespace epo::cli {

// "layer 8 neuron 12", "least logit of \" dog\" + 3 more"; escaped for a terminal.
std::string ObjectiveText(const v1::Objective& objective);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_OBJECTIVE_TEXT_H_
