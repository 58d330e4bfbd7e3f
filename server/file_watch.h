// Files that are read again when they change.
#ifndef EPO_SERVER_FILE_WATCH_H_
#define EPO_SERVER_FILE_WATCH_H_

#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace epo {

// The whole file, at most 1 MiB. FAILED_PRECONDITION names the file and why it cannot be read.
absl::StatusOr<std::string> ReadWholeFile(const std::filesystem::path& file);

// Warns in the log when others than the file's owner and group may read it.
void WarnIfOthersCanRead(const std::filesystem::path& file);

// Looks at files once a `period` on a thread of its own, by size, times and inode, links followed,
// so that an edit, a rename over the file and a switched link are all seen, and files on any file
// system. Thread-safe.
class FileWatch {
 public:
  explicit FileWatch(absl::Duration period = absl::Seconds(1));
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  // Calls `changed` on the watch's thread, until the watch is destroyed, within about a period of a
  // change of any of `files`, and once for how they are found first: so what changes between
  // reading a file and adding it is not missed.
  void Add(std::vector<std::filesystem::path> files, std::function<void()> changed);

 private:
  struct Entry {
    std::vector<std::filesystem::path> files;
    std::function<void()> changed;
    std::string seen;
  };
  void Run(absl::Duration period);

  absl::Mutex mutex_;
  std::vector<Entry> added_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace epo

#endif  // EPO_SERVER_FILE_WATCH_H_
