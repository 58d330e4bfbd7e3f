// A file that is there whole or not at all.
#ifndef EPO_CLIENT_CLI_WRITE_FILE_H_
#define EPO_CLIENT_CLI_WRITE_FILE_H_

#include <absl/status/status.h>

#include <string>
#include <string_view>

namespace epo::cli {

// Whether WriteFile() is likely to succeed; to be asked before long work. FAILED_PRECONDITION says
// why not: the folder is missing or read-only, or `path` is something else than a file.
absl::Status CheckWritable(const std::string& path);

// Makes or replaces the file: writes beside it and renames, so that a reader sees the old content
// or the new, and an error leaves the old. A symbolic link stays one; what it names is replaced.
absl::Status WriteFile(const std::string& path, std::string_view content);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_WRITE_FILE_H_
