// `epo report`.
#ifndef EPO_CLIENT_CLI_REPORT_H_
#define EPO_CLIENT_CLI_REPORT_H_

#include "client/cli/command.h"

namespace epo::cli {

// `epo report`: writes what a job or sweep found as a page or image.
void AddReport(Commands& commands);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_REPORT_H_
