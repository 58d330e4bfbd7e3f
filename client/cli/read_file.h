// Whole files that the user names.
#ifndef EPO_CLIENT_CLI_READ_FILE_H_
#define EPO_CLIENT_CLI_READ_FILE_H_

#include <absl/status/statusor.h>

#include <string>

namespace epo::cli {

// What the file holds. INVALID_ARGUMENT names the file and says why it cannot be read, as of one
// that is missing or a directory.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_READ_FILE_H_
