#include "server/store_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace epo {
namespace {

absl::Status Unusable(const std::filesystem::path& dir, const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat("state directory ", dir.string(), ": ", what,
                                                    "; choose another with --state-dir"));
}

// The pid that the lock's holder wrote, or empty in the instant before it has.
std::string ReadPid(int fd) {
  char buffer[32];
  const ssize_t size = pread(fd, buffer, sizeof(buffer), 0);
  return std::string(
      absl::StripAsciiWhitespace({buffer, static_cast<size_t>(size > 0 ? size : 0)}));
}

}  // namespace

absl::StatusOr<StoreLock> StoreLock::Acquire(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return Unusable(dir, absl::StrCat("cannot be made: ", error.message()));

  const int fd = open((dir / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Unusable(dir, absl::StrCat("cannot be written: lock: ", std::strerror(errno)));
  StoreLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return Unusable(dir, absl::StrCat("cannot be locked: ", std::strerror(errno)));
    }
    const std::string pid = ReadPid(fd);
    return Unusable(dir,
                    absl::StrCat("in use by another server, pid ", pid.empty() ? "unknown" : pid));
  }
  // On a full disk the lock holds without the pid in it.
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 ||
      (pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()) &&
       errno != ENOSPC)) {
    return Unusable(dir, absl::StrCat("cannot be written: lock: ", std::strerror(errno)));
  }
  return lock;
}

StoreLock::~StoreLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace epo
