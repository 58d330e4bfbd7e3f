// Rows of jobs and sweeps, as the parts of SqliteStore share them. For one thread at a time, as the
// connection is. Everything throws SQLite::Exception.
#ifndef EPO_SERVER_SQLITE_ROWS_H_
#define EPO_SERVER_SQLITE_ROWS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "epo/v1/job.pb.h"
#include "server/sqlite_connection.h"

namespace epo {

// NOT_FOUND.
absl::Status UnknownJob(const std::string& id);
absl::Status UnknownSweep(const std::string& id);

// The page of `kind` ("jobs") before this place in the order of creation, and back; a token of
// another kind is INVALID_ARGUMENT.
std::string FormatPageToken(const std::string& kind, int64_t seq);
absl::StatusOr<int64_t> ParsePageToken(const std::string& kind, const std::string& token);

// Makes a request id unique among its client's. No client's name holds a slash.
std::string RequestKey(const std::string& client, const std::string& request_id);

// ALREADY_EXISTS: the id behind `request_key` was used for another request, which made `what`.
absl::Status RequestIdTaken(const std::string& request_key, const std::string& what);

// The key of a job's rows in the other tables.
std::optional<int64_t> FindJobSeq(SqliteConnection& connection, const std::string& id);

// The client's jobs that are queued or paused.
int64_t CountWaiting(SqliteConnection& connection, const std::string& client);

// What a SELECT from jobs has where ReadJob() is to read a job: two columns.
inline constexpr char kJobColumns[] =
    "jobs.job, (SELECT job_spec FROM sweeps WHERE sweeps.seq = jobs.sweep)";
// The job in kJobColumns, which begin at `column`; false when the bytes are damaged.
bool ReadJob(const SqliteQuery& query, int column, v1::Job& job);

// `sweep`: the key of the job's sweep, in whose row is what its jobs' specs have in common.
void InsertJob(SqliteConnection& connection, const v1::Job& job, const std::string& request_key,
               const std::string& request, std::optional<int64_t> sweep);
// Whether there was such a job.
bool OverwriteJob(SqliteConnection& connection, const v1::Job& job);

}  // namespace epo

#endif  // EPO_SERVER_SQLITE_ROWS_H_
