#include "client/cli/write_file.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace epo::cli {
namespace {

namespace fs = std::filesystem;

absl::Status Error(const std::string& path, int error) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(error)));
}

// Where the bytes go when `path` is a link, be it one to nothing yet.
fs::path Target(const std::string& path) {
  std::error_code error;
  fs::path target = fs::absolute(path, error);
  // A circle of links fails later, as a file that cannot be opened.
  for (int i = 0; i < 40 && fs::is_symlink(target, error); ++i) {
    target = target.parent_path() / fs::read_symlink(target, error);
  }
  return target;
}

absl::Status WriteAll(int file, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t size = write(file, content.data(), content.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Error(path, errno);
    content.remove_prefix(size);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckWritable(const std::string& path) {
  const fs::path target = Target(path);
  struct stat found;
  if (stat(target.c_str(), &found) == 0) {
    if (S_ISDIR(found.st_mode)) return Error(path, EISDIR);
    if (!S_ISREG(found.st_mode)) {
      return absl::FailedPreconditionError(absl::StrCat("cannot write ", path, ": not a file"));
    }
  } else if (errno != ENOENT) {
    return Error(path, errno);
  }
  if (access(target.parent_path().c_str(), W_OK | X_OK) != 0) return Error(path, errno);
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, std::string_view content) {
  if (absl::Status status = CheckWritable(path); !status.ok()) return status;
  const fs::path target = Target(path);
  std::string temporary = absl::StrCat(target.string(), ".XXXXXX");
  const int file = mkostemp(temporary.data(), O_CLOEXEC);
  if (file < 0) return Error(path, errno);
  // As a file that is simply created.
  const mode_t mask = umask(0);
  umask(mask);
  absl::Status status = WriteAll(file, content, path);
  if (status.ok() && fchmod(file, 0666 & ~mask) != 0) status = Error(path, errno);
  if (status.ok() && fsync(file) != 0) status = Error(path, errno);
  if (close(file) != 0 && status.ok()) status = Error(path, errno);
  if (status.ok() && std::rename(temporary.c_str(), target.c_str()) != 0) {
    status = Error(path, errno);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

}  // namespace epo::cli
