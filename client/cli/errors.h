// What goes wrong, as lines on stderr and as an exit code.
#ifndef EPO_CLIENT_CLI_ERRORS_H_
#define EPO_CLIENT_CLI_ERRORS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <vector>

#include "epo/v1/job.pb.h"

namespace epo::cli {

// Exit codes; an RPC error is kRpcError plus its gRPC code (78: the server cannot be reached).
enum ExitCode {
  kDone = 0,
  kJobFailed = 1,
  kUsage = 2,
  kJobCancelled = 3,
  kJobPending = 8,
  kRpcError = 64,
};

// The exit code that tells how a followed job stands.
int ExitCodeOf(v1::Job::State state);

// The flag, or JOB or TEXT, that fills a request's field, given by its path in a BadRequest
// ("spec.top_k" -> "--topk"); empty for a field that no flag fills. `prompt_flags` says which flag
// gave each of the request's prompts, `term_flags` which gave each of its objective's terms, or
// each of a sweep's objectives.
std::string FlagOfField(const std::string& field, const std::vector<std::string>& prompt_flags,
                        const std::vector<std::string>& term_flags = {});

// Whether the server says that asking again later helps.
bool HasRetryInfo(const grpc::Status& status);

// Why a connection failed, without the layers of gRPC that passed the reason on.
std::string ConnectionProblem(const grpc::Status& status);

// The error in lines for a person, without the leading "epo: ": one for each field of a BadRequest,
// else one. Escaped for a terminal.
std::vector<std::string> ErrorLines(const grpc::Status& status, const std::string& server,
                                    const std::vector<std::string>& prompt_flags = {},
                                    const std::vector<std::string>& term_flags = {});

// Prints ErrorLines() to stderr, each behind "epo: ", and returns the exit code.
int ReportError(const grpc::Status& status, const std::string& server,
                const std::vector<std::string>& prompt_flags = {},
                const std::vector<std::string>& term_flags = {});

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_ERRORS_H_
