// What a report needs of the server.
#ifndef EPO_CLIENT_CLI_REPORT_FETCH_H_
#define EPO_CLIENT_CLI_REPORT_FETCH_H_

#include <grpcpp/support/status.h>

#include <string>
#include <vector>

#include "client/cli/command.h"
#include "client/cli/report_data.h"

namespace epo::cli {

// Each fetches with as many calls as it takes and gives the first one's error that there is.

grpc::Status FetchServer(Session& session, v1::GetServerInfoResponse* server);
grpc::Status FetchJob(Session& session, const std::string& id, v1::Job* job);

// A job's steps and history up to its last completed iteration, which `report.job` tells; that of a
// running job goes on meanwhile. Thresholds that are empty are chosen.
grpc::Status FetchRun(Session& session, std::vector<double> thresholds, JobReport& report);

// The job's frontier now.
grpc::Status FetchFrontier(Session& session, const std::string& id, v1::FrontierKind kind,
                           v1::Frontier* frontier);

// Attributes the report's frontier, prompt by prompt; tells on stderr how far it is. Where the
// server cannot attribute for this job or this client, that is noted in the report and on stderr,
// and the status is OK.
grpc::Status FetchAttributions(Session& session, JobReport& report);

grpc::Status FetchSweep(Session& session, const std::string& id, v1::Sweep* sweep,
                        std::vector<v1::ObjectiveFrontier>* objectives);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_REPORT_FETCH_H_
