// What a job maximises, in a few words.
#ifndef EPO_CLIENT_CLI_OBJECTIVE_TEXT_H_
#define EPO_CLIENT_CLI_OBJECTIVE_TEXT_H_

#include <string>

#include "epo/v1/objective.pb.h"

namespace epo::cli {

// "layer 8 neuron 12", "least layer 12:mid direction v0123456…:5 at max + 2 * logit of \" dog\" + 3
// more"; escaped for a terminal. What is as by default is left out.
std::string ObjectiveText(const v1::Objective& objective);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_OBJECTIVE_TEXT_H_
