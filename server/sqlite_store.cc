#include "server/sqlite_store.h"

#include <sqlite3.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/job_state.h"
#include "server/sqlite_rows.h"
#include "server/store_compress.h"

namespace epo {
namespace {

constexpr int kMaxPageSize = 1000;

constexpr int kMaxIdleLogBytes = 4 << 20;

// Free pages that are given back in one transaction: what a job's next step waits for.
constexpr int kShrinkPages = 256;

// What SQLite takes of the disk, at most, to open a database.
constexpr uintmax_t kOpenBytes = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::filesystem::path& dir) {
  return SqliteStore::Open(dir);
}

absl::StatusOr<std::unique_ptr<Store>> SqliteStore::Open(const std::filesystem::path& dir) {
  absl::StatusOr<StoreLock> lock = StoreLock::Acquire(dir);
  if (!lock.ok()) return lock.status();
  const std::filesystem::path file = dir / "epo.db";
  try {
    std::unique_ptr<SqliteStore> store(new SqliteStore(*std::move(lock), file));
    const absl::MutexLock hold(&store->write_mutex_);
    if (absl::Status status = MigrateSchema(store->writer_, file); !status.ok()) return status;
    const std::string mode =
        store->writer_.database().execAndGet("PRAGMA journal_mode = WAL").getString();
    if (mode != "wal") {
      return absl::FailedPreconditionError(
          absl::StrCat(file.string(),
                       ": its file system cannot hold SQLite's write-ahead log; choose a local "
                       "directory with --state-dir"));
    }
    // The log is cut back after a burst, and it and its index stay when the server stops: so one
    // can be started on a full disk.
    store->writer_.database().exec(absl::StrCat("PRAGMA journal_size_limit = ", kMaxIdleLogBytes));
    int keep = 1;
    sqlite3_file_control(store->writer_.database().getHandle(), "main", SQLITE_FCNTL_PERSIST_WAL,
                         &keep);
    return store;
  } catch (const SQLite::Exception& error) {
    absl::Status status = SqliteStatus(error, file, "open the database");
    // SQLite calls it an I/O error when there is no room for the files beside the database.
    std::error_code unknown;
    const auto free_bytes = std::filesystem::space(dir, unknown).available;
    if (unknown || free_bytes >= kOpenBytes) return status;
    return absl::ResourceExhaustedError(
        absl::StrCat(status.message(), ", with ", free_bytes, " bytes free on its disk"));
  }
}

SqliteStore::SqliteStore(StoreLock lock, std::filesystem::path file)
    : lock_(std::move(lock)),
      file_(std::move(file)),
      rest_file_(file_.parent_path() / "at-rest"),
      writer_(file_, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE) {}

absl::Status SqliteStore::Damaged(const std::string& operation) const {
  return absl::DataLossError(
      absl::StrCat("cannot ", operation, " in ", file_.string(), ": the stored bytes are damaged"));
}

absl::StatusOr<std::optional<v1::Job>> SqliteStore::EarlierJob(SqliteConnection& connection,
                                                               const std::string& operation,
                                                               const std::string& request_key,
                                                               const std::string& request) const {
  SqliteQuery earlier = connection.Query("SELECT request, job FROM jobs WHERE request_id = ?");
  if (!earlier.BindText(1, request_key).Next()) return std::nullopt;
  v1::Job job;
  if (!job.ParseFromString(earlier.Blob(1))) return Damaged(operation);
  if (earlier.Blob(0) != request)
    return RequestIdTaken(request_key, absl::StrCat("job ", job.id()));
  return job;
}

absl::StatusOr<Store::Created> SqliteStore::CreateJob(const v1::Job& job,
                                                      const std::string& request_id,
                                                      const std::string& request, int max_waiting) {
  const std::string operation = absl::StrCat("create job ", job.id());
  const std::string request_key = RequestKey(job.client(), request_id);
  Created created{job, true};
  absl::Status status = Write(operation, Durability::kPowerLoss, [&](SqliteConnection& connection) {
    absl::StatusOr<std::optional<v1::Job>> earlier =
        EarlierJob(connection, operation, request_key, request);
    if (!earlier.ok()) return earlier.status();
    if (earlier->has_value()) {
      created = {**std::move(earlier), false};
      return absl::OkStatus();
    }
    if (FindJobSeq(connection, job.id())) {
      return absl::AlreadyExistsError(absl::StrCat("job ", job.id(), " exists"));
    }
    if (CountWaiting(connection, job.client()) >= max_waiting) {
      return absl::OutOfRangeError(
          absl::StrCat("client ", job.client(), " has ", max_waiting, " waiting jobs"));
    }
    InsertJob(connection, job, request_key, request, /*sweep=*/std::nullopt);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return created;
}

absl::Status SqliteStore::UpdateJob(const v1::Job& job) {
  return Write(absl::StrCat("update job ", job.id()),
               IsTerminal(job.state()) ? Durability::kPowerLoss : Durability::kProcessCrash,
               [&](SqliteConnection& connection) {
                 return OverwriteJob(connection, job) ? absl::OkStatus() : UnknownJob(job.id());
               });
}

absl::Status SqliteStore::UpdateJobs(const std::vector<v1::Job>& jobs) {
  const bool ends = std::any_of(jobs.begin(), jobs.end(),
                                [](const v1::Job& job) { return IsTerminal(job.state()); });
  return Write(absl::StrCat("update ", jobs.size(), " jobs"),
               ends ? Durability::kPowerLoss : Durability::kProcessCrash,
               [&](SqliteConnection& connection) {
                 for (const v1::Job& job : jobs) {
                   if (!OverwriteJob(connection, job)) return UnknownJob(job.id());
                 }
                 return absl::OkStatus();
               });
}

absl::Status SqliteStore::NoteRound(const std::vector<std::string>& ids,
                                    const std::vector<v1::Job>& begun) {
  absl::Status status =
      Write("note the jobs of a round",
            begun.empty() ? Durability::kProcessCrash : Durability::kPowerLoss,
            [&](SqliteConnection& connection) {
              for (const v1::Job& job : begun) {
                if (!OverwriteJob(connection, job)) return UnknownJob(job.id());
              }
              connection.Query("DELETE FROM round_jobs").Run();
              for (const std::string& id : ids) {
                const std::optional<int64_t> seq = FindJobSeq(connection, id);
                if (!seq) return UnknownJob(id);
                connection.Query("INSERT INTO round_jobs (job) VALUES (?)").BindInt(1, *seq).Run();
              }
              return absl::OkStatus();
            });
  // A transaction that could not be synced may be found on the disk all the same: the file says
  // that its round never began.
  if (status.ok()) {
    std::error_code unknown;
    std::filesystem::remove(rest_file_, unknown);
  } else if (std::ofstream(rest_file_).is_open() && ids.empty()) {
    status = absl::OkStatus();
  }
  return status;
}

absl::Status SqliteStore::TryWrite() {
  return Write("try a write", Durability::kPowerLoss, [](SqliteConnection& connection) {
    // Its page is written whatever it was before.
    SQLite::Database& database = connection.database();
    const int64_t version = database.execAndGet("PRAGMA user_version").getInt64();
    database.exec(absl::StrCat("PRAGMA user_version = ", version));
    return absl::OkStatus();
  });
}

absl::Status SqliteStore::AppendStep(const StepRecord& record) {
  const std::string& id = record.job.id();
  const int index = record.step.index();
  if (record.iteration.index() != index) {
    return absl::InvalidArgumentError(absl::StrCat(
        "step ", index, " of job ", id, " comes with iteration ", record.iteration.index()));
  }
  const std::string iteration = Compress(record.iteration.SerializeAsString());
  return Write(
      absl::StrCat("append step ", index, " of job ", id),
      IsTerminal(record.job.state()) ? Durability::kPowerLoss : Durability::kProcessCrash,
      [&](SqliteConnection& connection) {
        const std::optional<int64_t> seq = FindJobSeq(connection, id);
        if (!seq) return UnknownJob(id);
        {
          SqliteQuery next =
              connection.Query("SELECT coalesce(max(idx) + 1, 0) FROM steps WHERE job = ?");
          next.BindInt(1, *seq).Next();
          if (next.Int(0) != index) {
            return absl::FailedPreconditionError(absl::StrCat(
                "step ", index, " of job ", id, " is not its next one, ", next.Int(0)));
          }
        }
        connection.Query("INSERT INTO steps (job, idx, step) VALUES (?, ?, ?)")
            .BindInt(1, *seq)
            .BindInt(2, index)
            .BindBlob(3, record.step.SerializeAsString())
            .Run();
        connection.Query("INSERT INTO iterations (job, idx, iteration) VALUES (?, ?, ?)")
            .BindInt(1, *seq)
            .BindInt(2, index)
            .BindBlob(3, iteration)
            .Run();
        connection.Query("INSERT OR REPLACE INTO checkpoints (job, checkpoint) VALUES (?, ?)")
            .BindInt(1, *seq)
            .BindBlob(2, record.checkpoint)
            .Run();
        OverwriteJob(connection, record.job);
        return absl::OkStatus();
      });
}

absl::Status SqliteStore::DeleteJob(const std::string& id) {
  const absl::Status status = Write(
      absl::StrCat("delete job ", id), Durability::kPowerLoss, [&](SqliteConnection& connection) {
        const int deleted = connection.Query("DELETE FROM jobs WHERE id = ?").BindText(1, id).Run();
        return deleted > 0 ? absl::OkStatus() : UnknownJob(id);
      });
  if (status.ok()) Shrink();
  return status;
}

void SqliteStore::Shrink() {
  int64_t free = std::numeric_limits<int64_t>::max();
  bool done = false;
  while (!done) {
    const absl::Status status =
        Write("give back free pages", Durability::kProcessCrash, [&](SqliteConnection& connection) {
          const int64_t before = std::exchange(
              free, connection.database().execAndGet("PRAGMA freelist_count").getInt64());
          // A file that was made by an older binary keeps its free pages.
          done = free == 0 || free >= before;
          if (!done) {
            connection.database().exec(
                absl::StrCat("PRAGMA incremental_vacuum(", kShrinkPages, ")"));
          }
          return absl::OkStatus();
        });
    // They serve new jobs, and the next deletion tries again.
    if (!status.ok()) return;
  }
}

absl::StatusOr<v1::Job> SqliteStore::GetJob(const std::string& id) const {
  const std::string operation = absl::StrCat("read job ", id);
  return Read(operation, [&](SqliteConnection& connection) -> absl::StatusOr<v1::Job> {
    SqliteQuery query =
        connection.Query(absl::StrCat("SELECT ", kJobColumns, " FROM jobs WHERE id = ?"));
    if (!query.BindText(1, id).Next()) return UnknownJob(id);
    v1::Job job;
    if (!ReadJob(query, 0, job)) return Damaged(operation);
    return job;
  });
}

absl::StatusOr<JobPage> SqliteStore::ListJobs(const ListQuery& list) const {
  if (list.page_size < 1 || list.page_size > kMaxPageSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size: ", list.page_size, " is not in 1 to ", kMaxPageSize));
  }
  absl::StatusOr<int64_t> before = std::numeric_limits<int64_t>::max();
  if (!list.page_token.empty()) before = ParsePageToken("jobs", list.page_token);
  if (!before.ok()) return before.status();

  // The inner query reads nothing but an index that ends in seq, however many other jobs there are.
  const std::string sql = absl::StrCat(
      "SELECT seq, ", kJobColumns, " FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE seq < ?1",
      list.client ? " AND client = ?4" : "",
      list.sweep ? " AND sweep = (SELECT seq FROM sweeps WHERE id = ?5)" : "",
      list.states.empty() ? "" : " AND state IN (SELECT value FROM json_each(?3))",
      " ORDER BY seq DESC LIMIT ?2) ORDER BY seq DESC");
  return Read("list jobs", [&](SqliteConnection& connection) -> absl::StatusOr<JobPage> {
    SqliteQuery query = connection.Query(sql);
    // One more than the page tells whether another follows.
    query.BindInt(1, *before).BindInt(2, list.page_size + 1);
    if (!list.states.empty()) {
      query.BindText(3, absl::StrCat("[", absl::StrJoin(list.states, ","), "]"));
    }
    if (list.client) query.BindText(4, *list.client);
    if (list.sweep) query.BindText(5, *list.sweep);
    JobPage page;
    int64_t last = 0;
    size_t bytes = 0;
    while (query.Next()) {
      v1::Job job;
      if (!ReadJob(query, 1, job)) return Damaged("list jobs");
      bytes += job.ByteSizeLong();
      if (static_cast<int>(page.jobs.size()) == list.page_size ||
          (bytes > kMaxPageBytes && !page.jobs.empty())) {
        page.next_page_token = FormatPageToken("jobs", last);
        break;
      }
      last = query.Int(0);
      page.jobs.push_back(std::move(job));
    }
    return page;
  });
}

absl::StatusOr<std::vector<v1::Job>> SqliteStore::UnfinishedJobs() const {
  const std::string operation = "read the unfinished jobs";
  return Read(operation, [&](SqliteConnection& connection) -> absl::StatusOr<std::vector<v1::Job>> {
    SqliteQuery query = connection.Query(
        absl::StrCat("SELECT ", kJobColumns,
                     " FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE state NOT IN (?, ?, ?)) "
                     "ORDER BY seq"));
    query.BindInt(1, v1::Job::SUCCEEDED).BindInt(2, v1::Job::FAILED).BindInt(3, v1::Job::CANCELLED);
    std::vector<v1::Job> jobs;
    while (query.Next()) {
      if (!ReadJob(query, 0, jobs.emplace_back())) return Damaged(operation);
    }
    return jobs;
  });
}

absl::StatusOr<std::vector<std::string>> SqliteStore::NotedRound() const {
  using Ids = std::vector<std::string>;
  std::error_code unknown;
  if (std::filesystem::exists(rest_file_, unknown)) return Ids();
  return Read("read the last round", [](SqliteConnection& connection) -> absl::StatusOr<Ids> {
    SqliteQuery query = connection.Query(
        "SELECT id FROM jobs WHERE seq IN (SELECT job FROM round_jobs) ORDER BY seq");
    Ids ids;
    while (query.Next()) ids.push_back(query.Blob(0));
    return ids;
  });
}

absl::StatusOr<std::map<v1::Job::State, int64_t>> SqliteStore::CountJobs() const {
  using Counts = std::map<v1::Job::State, int64_t>;
  return Read("count the jobs", [](SqliteConnection& connection) -> absl::StatusOr<Counts> {
    SqliteQuery query = connection.Query("SELECT state, count(*) FROM jobs GROUP BY state");
    Counts counts;
    while (query.Next()) counts[static_cast<v1::Job::State>(query.Int(0))] = query.Int(1);
    return counts;
  });
}

absl::StatusOr<std::optional<v1::Job>> SqliteStore::FindRepeat(const std::string& client,
                                                               const std::string& request_id,
                                                               const std::string& request) const {
  const std::string operation = "find an earlier request";
  return Read(operation, [&](SqliteConnection& connection) {
    return EarlierJob(connection, operation, RequestKey(client, request_id), request);
  });
}

absl::Status SqliteStore::PutVector(const StoredVector& vector, const std::string& client,
                                    int max_vectors) {
  return Write(
      absl::StrCat("keep vector ", vector.name), Durability::kPowerLoss,
      [&](SqliteConnection& connection) {
        if (connection.Query("SELECT 1 FROM vectors WHERE name = ?")
                .BindText(1, vector.name)
                .Next()) {
          return absl::OkStatus();
        }
        {
          SqliteQuery count = connection.Query("SELECT count(*) FROM vectors WHERE client = ?");
          count.BindText(1, client).Next();
          if (count.Int(0) >= max_vectors) {
            return absl::OutOfRangeError(
                absl::StrCat("client ", client, " has ", max_vectors, " vectors"));
          }
        }
        connection.Query("INSERT INTO vectors (name, client, width, numbers) VALUES (?, ?, ?, ?)")
            .BindText(1, vector.name)
            .BindText(2, client)
            .BindInt(3, vector.width)
            .BindBlob(4, vector.values)
            .Run();
        return absl::OkStatus();
      });
}

absl::StatusOr<StoredVector> SqliteStore::GetVectorRow(const std::string& name, int row) const {
  const std::string operation = absl::StrCat("read vector ", name);
  return Read(operation, [&](SqliteConnection& connection) -> absl::StatusOr<StoredVector> {
    SqliteQuery query = connection.Query(
        "SELECT width, length(numbers), substr(numbers, 1 + 4 * width * ?2, 4 * width) "
        "FROM vectors WHERE name = ?1");
    if (!query.BindText(1, name).BindInt(2, std::max(row, 0)).Next()) {
      return absl::NotFoundError(absl::StrCat("no vector ", name));
    }
    StoredVector out{.name = name, .width = static_cast<int32_t>(query.Int(0))};
    const int64_t row_bytes = 4 * query.Int(0);
    if (row_bytes <= 0 || query.Int(1) % row_bytes != 0) return Damaged(operation);
    out.rows = static_cast<int32_t>(query.Int(1) / row_bytes);
    if (row < 0 || row >= out.rows) {
      return absl::OutOfRangeError(absl::StrCat(name, " has ", out.rows, " rows, from 0 on"));
    }
    out.values = query.Blob(2);
    return out;
  });
}

absl::StatusOr<int64_t> SqliteStore::UsedBytes() const {
  return Read("measure the database", [&](SqliteConnection& connection) -> absl::StatusOr<int64_t> {
    SqliteQuery query = connection.Query(
        "SELECT (page_count - freelist_count) * page_size "
        "FROM pragma_page_count, pragma_freelist_count, pragma_page_size");
    query.Next();
    std::error_code error;
    const auto log = std::filesystem::file_size(file_.string() + "-wal", error);
    // What it may keep when all is merged says nothing of the jobs.
    return query.Int(0) +
           (error ? 0 : std::max<int64_t>(static_cast<int64_t>(log) - kMaxIdleLogBytes, 0));
  });
}

absl::StatusOr<std::string> SqliteStore::GetCheckpoint(const std::string& id) const {
  return Read(absl::StrCat("read the checkpoint of job ", id),
              [&](SqliteConnection& connection) -> absl::StatusOr<std::string> {
                const std::optional<int64_t> seq = FindJobSeq(connection, id);
                if (!seq) return UnknownJob(id);
                SqliteQuery query =
                    connection.Query("SELECT checkpoint FROM checkpoints WHERE job = ?");
                return query.BindInt(1, *seq).Next() ? query.Blob(0) : "";
              });
}

template <typename Message, typename Decode>
absl::StatusOr<std::vector<Message>> SqliteStore::ReadRows(const std::string& operation,
                                                           const char* sql, const std::string& id,
                                                           int first, int limit,
                                                           Decode decode) const {
  if (limit < 1) return absl::InvalidArgumentError(absl::StrCat("limit: ", limit, " is below 1"));
  return Read(operation, [&](SqliteConnection& connection) -> absl::StatusOr<std::vector<Message>> {
    const std::optional<int64_t> seq = FindJobSeq(connection, id);
    if (!seq) return UnknownJob(id);
    SqliteQuery query = connection.Query(sql);
    query.BindInt(1, *seq).BindInt(2, first).BindInt(3, limit);
    std::vector<Message> messages;
    while (query.Next()) {
      if (!decode(query.Blob(0), messages.emplace_back())) return Damaged(operation);
    }
    return messages;
  });
}

absl::StatusOr<std::vector<v1::Step>> SqliteStore::GetSteps(const std::string& id, int first,
                                                            int limit) const {
  return ReadRows<v1::Step>(
      absl::StrCat("read the steps of job ", id),
      "SELECT step FROM steps WHERE job = ? AND idx >= ? ORDER BY idx LIMIT ?", id, first, limit,
      [](const std::string& blob, v1::Step& step) { return step.ParseFromString(blob); });
}

absl::StatusOr<std::vector<v1::Iteration>> SqliteStore::GetIterations(const std::string& id,
                                                                      int first, int limit) const {
  return ReadRows<v1::Iteration>(
      absl::StrCat("read the iterations of job ", id),
      "SELECT iteration FROM iterations WHERE job = ? AND idx >= ? ORDER BY idx LIMIT ?", id, first,
      limit, [](const std::string& blob, v1::Iteration& iteration) {
        const std::optional<std::string> bytes = Decompress(blob);
        return bytes && iteration.ParseFromString(*bytes);
      });
}

}  // namespace epo
