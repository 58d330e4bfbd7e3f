// SqliteStore's sweeps.
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/sqlite_rows.h"
#include "server/sqlite_store.h"
#include "server/sweep_state.h"

namespace epo {
namespace {

constexpr int kMaxPageSize = 1000;

// Adds what the sweep's jobs tell to what was stored of it; false when the bytes are damaged.
bool AddJobs(SqliteConnection& connection, int64_t seq, v1::Sweep& sweep) {
  SqliteQuery query = connection.Query("SELECT job FROM jobs WHERE sweep = ?");
  query.BindInt(1, seq);
  v1::Job job;
  while (query.Next()) {
    if (!job.ParseFromString(query.Blob(0))) return false;
    AddToSweep(job, sweep);
  }
  SettleSweep(sweep);
  return true;
}

}  // namespace

absl::StatusOr<std::optional<v1::Sweep>> SqliteStore::EarlierSweep(
    SqliteConnection& connection, const std::string& operation, const std::string& request_key,
    const std::string& request) const {
  SqliteQuery earlier =
      connection.Query("SELECT seq, request, sweep FROM sweeps WHERE request_id = ?");
  if (!earlier.BindText(1, request_key).Next()) return std::nullopt;
  v1::Sweep sweep;
  if (!sweep.ParseFromString(earlier.Blob(2)) || !AddJobs(connection, earlier.Int(0), sweep)) {
    return Damaged(operation);
  }
  if (earlier.Blob(1) != request) return RequestIdTaken(request_key, sweep.id());
  return sweep;
}

absl::StatusOr<Store::CreatedSweep> SqliteStore::CreateSweep(const v1::Sweep& sweep,
                                                             const std::vector<v1::Job>& jobs,
                                                             const std::string& request_id,
                                                             const std::string& request,
                                                             int max_waiting) {
  const std::string operation = absl::StrCat("create sweep ", sweep.id());
  const std::string request_key = RequestKey(sweep.client(), request_id);
  CreatedSweep created{sweep, true};
  absl::Status status = Write(operation, Durability::kPowerLoss, [&](SqliteConnection& connection) {
    absl::StatusOr<std::optional<v1::Sweep>> earlier =
        EarlierSweep(connection, operation, request_key, request);
    if (!earlier.ok()) return earlier.status();
    if (earlier->has_value()) {
      created = {**std::move(earlier), false};
      return absl::OkStatus();
    }
    if (CountWaiting(connection, sweep.client()) + static_cast<int64_t>(jobs.size()) >
        max_waiting) {
      return absl::OutOfRangeError(absl::StrCat("client ", sweep.client(), " would have more than ",
                                                max_waiting, " waiting jobs"));
    }
    connection
        .Query(
            "INSERT INTO sweeps (id, client, request_id, request, sweep, job_spec) VALUES "
            "(?, ?, ?, ?, ?, ?)")
        .BindText(1, sweep.id())
        .BindText(2, sweep.client())
        .BindOptionalText(3, request_key)
        .BindBlob(4, request)
        .BindBlob(5, sweep.SerializeAsString())
        .BindBlob(6, sweep.spec().job().SerializeAsString())
        .Run();
    const int64_t seq = connection.database().getLastInsertRowid();
    for (const v1::Job& job : jobs) InsertJob(connection, job, "", "", seq);
    return AddJobs(connection, seq, created.sweep) ? absl::OkStatus() : Damaged(operation);
  });
  if (!status.ok()) return status;
  return created;
}

absl::Status SqliteStore::DeleteSweep(const std::string& id) {
  const absl::Status status =
      Write(absl::StrCat("delete ", id), Durability::kPowerLoss, [&](SqliteConnection& connection) {
        const int deleted =
            connection.Query("DELETE FROM sweeps WHERE id = ?").BindText(1, id).Run();
        return deleted > 0 ? absl::OkStatus() : UnknownSweep(id);
      });
  if (status.ok()) Shrink();
  return status;
}

absl::StatusOr<v1::Sweep> SqliteStore::GetSweep(const std::string& id) const {
  const std::string operation = absl::StrCat("read ", id);
  return Read(operation, [&](SqliteConnection& connection) -> absl::StatusOr<v1::Sweep> {
    // Open to the end, so that sweep and jobs are of one moment.
    SqliteQuery query = connection.Query("SELECT seq, sweep FROM sweeps WHERE id = ?");
    if (!query.BindText(1, id).Next()) return UnknownSweep(id);
    v1::Sweep sweep;
    if (!sweep.ParseFromString(query.Blob(1)) || !AddJobs(connection, query.Int(0), sweep)) {
      return Damaged(operation);
    }
    return sweep;
  });
}

absl::StatusOr<SweepPage> SqliteStore::ListSweeps(const ListQuery& list) const {
  if (list.page_size < 1 || list.page_size > kMaxPageSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size: ", list.page_size, " is not in 1 to ", kMaxPageSize));
  }
  absl::StatusOr<int64_t> before = std::numeric_limits<int64_t>::max();
  if (!list.page_token.empty()) before = ParsePageToken("sweeps", list.page_token);
  if (!before.ok()) return before.status();

  const std::string sql =
      absl::StrCat("SELECT seq, sweep FROM sweeps WHERE seq < ?1",
                   list.client ? " AND client = ?3" : "", " ORDER BY seq DESC LIMIT ?2");
  return Read("list sweeps", [&](SqliteConnection& connection) -> absl::StatusOr<SweepPage> {
    SqliteQuery query = connection.Query(sql);
    // One more than the page tells whether another follows.
    query.BindInt(1, *before).BindInt(2, list.page_size + 1);
    if (list.client) query.BindText(3, *list.client);
    SweepPage page;
    int64_t last = 0;
    size_t bytes = 0;
    while (query.Next()) {
      const std::string stored = query.Blob(1);
      bytes += stored.size();
      if (static_cast<int>(page.sweeps.size()) == list.page_size ||
          (bytes > kMaxPageBytes && !page.sweeps.empty())) {
        page.next_page_token = FormatPageToken("sweeps", last);
        break;
      }
      last = query.Int(0);
      v1::Sweep& sweep = page.sweeps.emplace_back();
      if (!sweep.ParseFromString(stored) || !AddJobs(connection, last, sweep)) {
        return Damaged("list sweeps");
      }
    }
    return page;
  });
}

absl::StatusOr<std::vector<v1::Job>> SqliteStore::SweepJobs(const std::string& id, int first,
                                                            int limit) const {
  const std::string operation = absl::StrCat("read the jobs of ", id);
  return Read(operation, [&](SqliteConnection& connection) -> absl::StatusOr<std::vector<v1::Job>> {
    SqliteQuery sweep = connection.Query("SELECT seq FROM sweeps WHERE id = ?");
    if (!sweep.BindText(1, id).Next()) return UnknownSweep(id);
    // None is ever deleted alone, so that a job's place is its index.
    SqliteQuery query = connection.Query(absl::StrCat(
        "SELECT ", kJobColumns, " FROM jobs WHERE sweep = ? ORDER BY seq LIMIT ? OFFSET ?"));
    query.BindInt(1, sweep.Int(0)).BindInt(2, limit).BindInt(3, first);
    std::vector<v1::Job> jobs;
    while (query.Next()) {
      if (!ReadJob(query, 0, jobs.emplace_back())) return Damaged(operation);
    }
    return jobs;
  });
}

absl::StatusOr<std::optional<v1::Sweep>> SqliteStore::FindSweepRepeat(
    const std::string& client, const std::string& request_id, const std::string& request) const {
  const std::string operation = "find an earlier request";
  return Read(operation, [&](SqliteConnection& connection) {
    return EarlierSweep(connection, operation, RequestKey(client, request_id), request);
  });
}

}  // namespace epo
