#include "server/sqlite_connection.h"

#include <SQLiteCpp/Transaction.h>
#include <sqlite3.h>

#include <iterator>

#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// How long a connection waits for a lock, such as an operator's `sqlite3 epo.db` or a checkpoint
// holds.
constexpr int kBusyTimeoutMs = 5000;

// "epo1" in ASCII: tells our files from other SQLite databases.
constexpr int64_t kApplicationId = 0x65706f31;

// Step i leads from schema version i to i + 1. Released steps never change; a change of the schema
// is a new step.
constexpr const char* kMigrations[] = {
    R"sql(
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  state INTEGER NOT NULL,         -- epo.v1.Job.State
  create_time INTEGER NOT NULL,   -- microseconds since the epoch
  request_id TEXT UNIQUE,
  request BLOB NOT NULL,
  job BLOB NOT NULL               -- epo.v1.Job
);
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE TABLE steps (
  job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
  idx INTEGER NOT NULL,
  step BLOB NOT NULL,             -- epo.v1.Step
  PRIMARY KEY (job, idx)
);
CREATE TABLE iterations (
  job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
  idx INTEGER NOT NULL,
  iteration BLOB NOT NULL,        -- epo.v1.Iteration, a zstd frame
  PRIMARY KEY (job, idx)
);
CREATE TABLE checkpoints (
  job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
  checkpoint BLOB NOT NULL
);
)sql",
    // Whose a job is. Since then request_id holds the client's name and the id, joined by '/': each
    // client has ids of its own.
    R"sql(
ALTER TABLE jobs ADD COLUMN client TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_by_client ON jobs (client, seq);
CREATE INDEX jobs_by_client_and_state ON jobs (client, state, seq);
)sql",
    // The jobs whose steps are under way.
    R"sql(
CREATE TABLE round_jobs (
  job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE
);
)sql",
    // Vectors that clients have uploaded. They outlive the jobs that name them.
    R"sql(
CREATE TABLE vectors (
  name TEXT PRIMARY KEY,          -- follows from the content
  client TEXT NOT NULL,           -- who was the first to upload it
  width INTEGER NOT NULL,         -- numbers a row
  numbers BLOB NOT NULL           -- little-endian float32, row after row
);
CREATE INDEX vectors_by_client ON vectors (client);
)sql",
    // Many jobs from one request. What the specs of a sweep's jobs have in common is in its row
    // alone.
    R"sql(
CREATE TABLE sweeps (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  client TEXT NOT NULL,
  request_id TEXT UNIQUE,
  request BLOB NOT NULL,
  sweep BLOB NOT NULL,            -- epo.v1.Sweep without what its jobs tell
  job_spec BLOB NOT NULL          -- epo.v1.JobSpec
);
CREATE INDEX sweeps_by_client ON sweeps (client, seq);
ALTER TABLE jobs ADD COLUMN sweep INTEGER REFERENCES sweeps (seq) ON DELETE CASCADE;
CREATE INDEX jobs_by_sweep ON jobs (sweep, seq) WHERE sweep IS NOT NULL;
)sql",
};
constexpr int64_t kSchemaVersion = std::size(kMigrations);

int64_t ReadInt(SqliteConnection& connection, const char* sql) {
  return connection.database().execAndGet(sql).getInt64();
}

absl::StatusCode CodeOf(int sqlite_code) {
  switch (sqlite_code & 0xff) {  // an extended code's low byte is its primary code
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_IOERR:
      return absl::StatusCode::kUnavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

SqliteQuery& SqliteQuery::BindText(int parameter, const std::string& text) {
  statement_.bind(parameter, text);
  return *this;
}

SqliteQuery& SqliteQuery::BindOptionalText(int parameter, const std::string& text) {
  if (!text.empty()) return BindText(parameter, text);
  statement_.bind(parameter);
  return *this;
}

SqliteQuery& SqliteQuery::BindBlob(int parameter, const std::string& bytes) {
  statement_.bind(parameter, bytes.data(), static_cast<int>(bytes.size()));
  return *this;
}

SqliteQuery& SqliteQuery::BindInt(int parameter, int64_t value) {
  statement_.bind(parameter, value);
  return *this;
}

SqliteQuery& SqliteQuery::BindOptionalInt(int parameter, std::optional<int64_t> value) {
  if (value) return BindInt(parameter, *value);
  statement_.bind(parameter);
  return *this;
}

SqliteConnection::SqliteConnection(const std::filesystem::path& file, int flags)
    : database_(file.string(), flags | SQLite::OPEN_NOMUTEX, kBusyTimeoutMs) {
  database_.exec("PRAGMA foreign_keys = ON");
}

SqliteQuery SqliteConnection::Query(const std::string& sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    found = statements_.emplace(sql, SQLite::Statement(database_, sql)).first;
  }
  return SqliteQuery(found->second);
}

absl::Status SqliteStatus(const SQLite::Exception& error, const std::filesystem::path& file,
                          const std::string& operation) {
  return absl::Status(
      CodeOf(error.getErrorCode()),
      absl::StrCat("cannot ", operation, " in ", file.string(), ": ", error.what()));
}

absl::Status MigrateSchema(SqliteConnection& connection, const std::filesystem::path& file) {
  const int64_t application = ReadInt(connection, "PRAGMA application_id");
  const int64_t version = ReadInt(connection, "PRAGMA user_version");
  const bool fresh = ReadInt(connection, "SELECT count(*) FROM sqlite_schema") == 0;
  if ((!fresh && application != kApplicationId) || version < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(file.string(), ": not an epo-server database (application_id ", application,
                     "); choose another directory with --state-dir"));
  }
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(file.string(), ": schema version ", version, " is newer than version ",
                     kSchemaVersion, " of this epo-server; run the newer epo-server"));
  }
  // Takes effect before the first table only: pages that deletions free can be given back.
  if (fresh) connection.database().exec("PRAGMA auto_vacuum = INCREMENTAL");
  for (int64_t next = version; next < kSchemaVersion; ++next) {
    SQLite::Transaction transaction(connection.database(), SQLite::TransactionBehavior::IMMEDIATE);
    connection.database().exec(kMigrations[next]);
    connection.database().exec(absl::StrCat("PRAGMA application_id = ", kApplicationId));
    connection.database().exec(absl::StrCat("PRAGMA user_version = ", next + 1));
    transaction.commit();
  }
  return absl::OkStatus();
}

}  // namespace epo
