#include "server/file_watch.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace epo {
namespace {

constexpr std::streamsize kMaxFileBytes = 1 << 20;

// Differs whenever a file is another one or was written to.
std::string StampOf(const std::vector<std::filesystem::path>& files) {
  std::string stamp;
  for (const std::filesystem::path& file : files) {
    struct stat info {};
    if (stat(file.c_str(), &info) != 0) {
      absl::StrAppend(&stamp, "missing;");
      continue;
    }
    absl::StrAppend(&stamp, info.st_dev, " ", info.st_ino, " ", info.st_size, " ",
                    info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, " ", info.st_ctim.tv_sec, ".",
                    info.st_ctim.tv_nsec, ";");
  }
  return stamp;
}

}  // namespace

absl::StatusOr<std::string> ReadWholeFile(const std::filesystem::path& file) {
  const auto error = [&](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat("cannot read ", file.string(), ": ", why));
  };
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return error(std::strerror(errno));
  std::string content(kMaxFileBytes + 1, '\0');
  errno = 0;
  stream.read(content.data(), static_cast<std::streamsize>(content.size()));
  if (stream.bad()) return error(errno == 0 ? "it cannot be read" : std::strerror(errno));
  if (stream.gcount() > kMaxFileBytes) return error("it is larger than 1 MiB");
  content.resize(stream.gcount());
  return content;
}

void WarnIfOthersCanRead(const std::filesystem::path& file) {
  struct stat info {};
  if (stat(file.c_str(), &info) != 0 || (info.st_mode & S_IROTH) == 0) return;
  spdlog::warn("{} can be read by everybody on this machine; chmod o= {}", file.string(),
               file.string());
}

FileWatch::FileWatch(absl::Duration period) : thread_([this, period] { Run(period); }) {}

FileWatch::~FileWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void FileWatch::Add(std::vector<std::filesystem::path> files, std::function<void()> changed) {
  absl::MutexLock lock(&mutex_);
  added_.push_back({std::move(files), std::move(changed), ""});
}

void FileWatch::Run(absl::Duration period) {
  std::vector<Entry> entries;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), period)) return;
      std::move(added_.begin(), added_.end(), std::back_inserter(entries));
      added_.clear();
    }
    for (Entry& entry : entries) {
      std::string stamp = StampOf(entry.files);
      if (stamp == entry.seen) continue;
      entry.seen = std::move(stamp);
      entry.changed();
    }
  }
}

}  // namespace epo
