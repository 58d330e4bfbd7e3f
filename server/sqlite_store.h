// The Store as one SQLite database in WAL mode.
#ifndef EPO_SERVER_SQLITE_STORE_H_
#define EPO_SERVER_SQLITE_STORE_H_

#include <SQLiteCpp/Transaction.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/sqlite_connection.h"
#include "server/store.h"
#include "server/store_lock.h"

namespace epo {

// Writes take turns on one connection; each read takes an idle connection of its own, so that it
// waits neither for a write nor for another read.
class SqliteStore final : public Store {
 public:
  // See Store::Open.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::filesystem::path& dir);

  absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& request_id,
                                    const std::string& request, int max_waiting) override;
  absl::StatusOr<CreatedSweep> CreateSweep(const v1::Sweep& sweep, const std::vector<v1::Job>& jobs,
                                           const std::string& request_id,
                                           const std::string& request, int max_waiting) override;
  absl::Status UpdateJob(const v1::Job& job) override;
  absl::Status UpdateJobs(const std::vector<v1::Job>& jobs) override;
  absl::Status NoteRound(const std::vector<std::string>& ids,
                         const std::vector<v1::Job>& begun) override;
  absl::Status TryWrite() override;
  absl::Status AppendStep(const StepRecord& record) override;
  absl::Status DeleteJob(const std::string& id) override;
  absl::Status PutVector(const StoredVector& vector, const std::string& client,
                         int max_vectors) override;
  absl::Status DeleteSweep(const std::string& id) override;

  absl::StatusOr<v1::Job> GetJob(const std::string& id) const override;
  absl::StatusOr<JobPage> ListJobs(const ListQuery& query) const override;
  absl::StatusOr<v1::Sweep> GetSweep(const std::string& id) const override;
  absl::StatusOr<SweepPage> ListSweeps(const ListQuery& query) const override;
  absl::StatusOr<std::vector<v1::Job>> SweepJobs(const std::string& id, int first,
                                                 int limit) const override;
  absl::StatusOr<std::vector<v1::Job>> UnfinishedJobs() const override;
  absl::StatusOr<std::vector<std::string>> NotedRound() const override;
  absl::StatusOr<std::map<v1::Job::State, int64_t>> CountJobs() const override;
  absl::StatusOr<std::optional<v1::Job>> FindRepeat(const std::string& client,
                                                    const std::string& request_id,
                                                    const std::string& request) const override;
  absl::StatusOr<StoredVector> GetVectorRow(const std::string& name, int row) const override;
  absl::StatusOr<std::optional<v1::Sweep>> FindSweepRepeat(
      const std::string& client, const std::string& request_id,
      const std::string& request) const override;
  absl::StatusOr<int64_t> UsedBytes() const override;
  absl::StatusOr<std::string> GetCheckpoint(const std::string& id) const override;
  absl::StatusOr<std::vector<v1::Step>> GetSteps(const std::string& id, int first,
                                                 int limit) const override;
  absl::StatusOr<std::vector<v1::Iteration>> GetIterations(const std::string& id, int first,
                                                           int limit) const override;

 private:
  // Whether a commit waits until the disk has it. Without, power loss (not a crash of the process)
  // may undo the last commits.
  enum class Durability { kProcessCrash, kPowerLoss };

  SqliteStore(StoreLock lock, std::filesystem::path file);

  // Runs `body(connection)` -> Status in one transaction, which is kept if the status is OK.
  // `operation` goes into error messages.
  template <typename Body>
  absl::Status Write(const std::string& operation, Durability durability, Body body);
  // Runs `body(connection)`, which returns a StatusOr, on a read connection.
  template <typename Body>
  std::invoke_result_t<Body, SqliteConnection&> Read(const std::string& operation, Body body) const;
  // Reads a job's rows with `sql`, which takes the job's seq, the first index and the limit;
  // `decode(blob, message)` is false for a damaged blob.
  template <typename Message, typename Decode>
  absl::StatusOr<std::vector<Message>> ReadRows(const std::string& operation, const char* sql,
                                                const std::string& id, int first, int limit,
                                                Decode decode) const;
  absl::Status Damaged(const std::string& operation) const;
  // What FindRepeat() and FindSweepRepeat() give, in a transaction.
  absl::StatusOr<std::optional<v1::Job>> EarlierJob(SqliteConnection& connection,
                                                    const std::string& operation,
                                                    const std::string& request_key,
                                                    const std::string& request) const;
  absl::StatusOr<std::optional<v1::Sweep>> EarlierSweep(SqliteConnection& connection,
                                                        const std::string& operation,
                                                        const std::string& request_key,
                                                        const std::string& request) const;
  // Gives free pages back to the file system, a few a transaction.
  void Shrink();

  const StoreLock lock_;
  const std::filesystem::path file_;
  // There while the round that the database notes is over, which it could not be told.
  const std::filesystem::path rest_file_;

  absl::Mutex write_mutex_;
  SqliteConnection writer_ ABSL_GUARDED_BY(write_mutex_);

  // Never more than the reads that ran at once.
  mutable absl::Mutex readers_mutex_;
  mutable std::vector<std::unique_ptr<SqliteConnection>> idle_readers_
      ABSL_GUARDED_BY(readers_mutex_);
};

template <typename Body>
absl::Status SqliteStore::Write(const std::string& operation, Durability durability, Body body) {
  const absl::MutexLock hold(&write_mutex_);
  try {
    SQLite::Database& database = writer_.database();
    // Not a cached statement: SQLite applies this pragma while it compiles it.
    database.exec(durability == Durability::kPowerLoss ? "PRAGMA synchronous = FULL"
                                                       : "PRAGMA synchronous = NORMAL");
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    if (absl::Status status = body(writer_); !status.ok()) return status;
    transaction.commit();
    return absl::OkStatus();
  } catch (const SQLite::Exception& error) {
    return SqliteStatus(error, file_, operation);
  }
}

template <typename Body>
std::invoke_result_t<Body, SqliteConnection&> SqliteStore::Read(const std::string& operation,
                                                                Body body) const {
  std::unique_ptr<SqliteConnection> connection;
  {
    const absl::MutexLock hold(&readers_mutex_);
    if (!idle_readers_.empty()) {
      connection = std::move(idle_readers_.back());
      idle_readers_.pop_back();
    }
  }
  try {
    if (!connection) connection = std::make_unique<SqliteConnection>(file_, SQLite::OPEN_READONLY);
    auto result = body(*connection);
    const absl::MutexLock hold(&readers_mutex_);
    idle_readers_.push_back(std::move(connection));
    return result;
  } catch (const SQLite::Exception& error) {
    return SqliteStatus(error, file_, operation);
  }
}

}  // namespace epo

#endif  // EPO_SERVER_SQLITE_STORE_H_
