#include "server/storage_guard.h"

#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/status.h"

namespace epo {
namespace {

constexpr absl::Duration kRetry = absl::Seconds(5);

absl::Status Full(const std::string& message, std::string_view reason, int64_t bytes,
                  int64_t limit) {
  return MakeError(absl::StatusCode::kResourceExhausted, message, reason,
                   {{"bytes", absl::StrCat(bytes)}, {"limit", absl::StrCat(limit)}});
}

}  // namespace

absl::Status StoreRefusesWrites(const absl::Status& status, const std::filesystem::path& dir) {
  std::string cause(status.message());
  // "cannot create job X in DIR/epo.db: CAUSE": neither X nor DIR are anything to a client.
  if (const size_t at = cause.find(dir.string()); at != std::string::npos) {
    const size_t end = cause.find(": ", at + dir.string().size());
    if (end != std::string::npos) cause = cause.substr(end + 2);
  }
  return WithRetry(MakeError(absl::StatusCode::kUnavailable,
                             absl::StrCat("the server cannot store anything at present: ", cause),
                             "STORE_REFUSES_WRITES", {{"cause", cause}}),
                   kRetry);
}

absl::Status StorageGuard::Admit() const {
  {
    absl::MutexLock lock(&mutex_);
    if (!writes_.ok()) return StoreRefusesWrites(writes_, dir_);
  }
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(dir_, error);
  // What cannot be measured is left to the write to find out.
  const auto free_bytes = static_cast<int64_t>(space.available);
  if (!error && free_bytes < limits_.min_free_bytes) {
    return Full(absl::StrCat("the server's disk has ", free_bytes,
                             " bytes free, and new jobs need at least ", limits_.min_free_bytes,
                             "; delete jobs or make room on the disk"),
                "DISK_ALMOST_FULL", free_bytes, limits_.min_free_bytes);
  }
  if (limits_.max_state_bytes == 0) return absl::OkStatus();
  const absl::StatusOr<int64_t> used = store_.UsedBytes();
  if (!used.ok()) return used.status();
  if (*used >= limits_.max_state_bytes) {
    return Full(absl::StrCat("the server's jobs take ", *used, " bytes of the ",
                             limits_.max_state_bytes, " that they may; delete jobs first"),
                "STATE_LIMIT_REACHED", *used, limits_.max_state_bytes);
  }
  return absl::OkStatus();
}

void StorageGuard::SetWrites(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  writes_ = status;
}

}  // namespace epo
