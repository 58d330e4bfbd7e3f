// Claims a state directory for one process.
#ifndef EPO_SERVER_STORE_LOCK_H_
#define EPO_SERVER_STORE_LOCK_H_

#include <filesystem>
#include <utility>

#include "absl/status/statusor.h"

namespace epo {

// Holds an exclusive flock on `dir`/lock, which also names the holder's pid, until it is destroyed
// or its process ends.
class StoreLock {
 public:
  // Makes `dir` and its parents where they are missing. FAILED_PRECONDITION names the directory
  // when it cannot be made or written, or when another holder (this process included) has it, whose
  // pid it names then.
  static absl::StatusOr<StoreLock> Acquire(const std::filesystem::path& dir);

  StoreLock(StoreLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  explicit StoreLock(int fd) : fd_(fd) {}

  int fd_;
};

}  // namespace epo

#endif  // EPO_SERVER_STORE_LOCK_H_
