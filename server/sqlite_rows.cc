#include "server/sqlite_rows.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace epo {
namespace {

int64_t Microseconds(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000 + time.nanos() / 1000;
}

// Marks a page token as ours; the number after it is the last listed row's place in the order of
// creation.
std::string PagePrefix(const std::string& kind) { return absl::StrCat(kind, "-before:"); }

// The row's bytes. A sweep's jobs leave out what is in the sweep's row.
std::string Serialize(const v1::Job& job) {
  if (job.sweep().empty()) return job.SerializeAsString();
  v1::Job own = job;
  v1::JobSpec spec;
  *spec.mutable_objective() = job.spec().objective();
  spec.set_seed(job.spec().seed());
  *own.mutable_spec() = std::move(spec);
  return own.SerializeAsString();
}

}  // namespace

absl::Status UnknownJob(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("no job ", id));
}

absl::Status UnknownSweep(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("no sweep ", id));
}

std::string FormatPageToken(const std::string& kind, int64_t seq) {
  return absl::WebSafeBase64Escape(absl::StrCat(PagePrefix(kind), seq));
}

absl::StatusOr<int64_t> ParsePageToken(const std::string& kind, const std::string& token) {
  std::string text;
  int64_t seq = 0;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    absl::string_view number = text;
    if (absl::ConsumePrefix(&number, PagePrefix(kind)) && absl::SimpleAtoi(number, &seq) &&
        seq > 0) {
      return seq;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("page_token: not one that a list of ", kind,
                                                 " returned; leave it empty for the first page"));
}

std::string RequestKey(const std::string& client, const std::string& request_id) {
  if (client.empty() || request_id.empty()) return request_id;
  return absl::StrCat(client, "/", request_id);
}

absl::Status RequestIdTaken(const std::string& request_key, const std::string& what) {
  return absl::AlreadyExistsError(
      absl::StrCat("request_id: ", request_key, " was used for another request, that of ", what));
}

std::optional<int64_t> FindJobSeq(SqliteConnection& connection, const std::string& id) {
  SqliteQuery query = connection.Query("SELECT seq FROM jobs WHERE id = ?");
  query.BindText(1, id);
  if (!query.Next()) return std::nullopt;
  return query.Int(0);
}

int64_t CountWaiting(SqliteConnection& connection, const std::string& client) {
  SqliteQuery query =
      connection.Query("SELECT count(*) FROM jobs WHERE client = ? AND state IN (?, ?)");
  query.BindText(1, client).BindInt(2, v1::Job::QUEUED).BindInt(3, v1::Job::PAUSED).Next();
  return query.Int(0);
}

bool ReadJob(const SqliteQuery& query, int column, v1::Job& job) {
  if (!job.ParseFromString(query.Blob(column))) return false;
  if (job.sweep().empty()) return true;
  v1::JobSpec spec;
  if (!spec.ParseFromString(query.Blob(column + 1))) return false;
  spec.MergeFrom(job.spec());
  *job.mutable_spec() = std::move(spec);
  return true;
}

void InsertJob(SqliteConnection& connection, const v1::Job& job, const std::string& request_key,
               const std::string& request, std::optional<int64_t> sweep) {
  SqliteQuery query = connection.Query(
      "INSERT INTO jobs (id, state, create_time, request_id, request, job, client, sweep) VALUES "
      "(?, ?, ?, ?, ?, ?, ?, ?)");
  query.BindText(1, job.id())
      .BindInt(2, job.state())
      .BindInt(3, Microseconds(job.create_time()))
      .BindOptionalText(4, request_key)
      .BindBlob(5, request)
      .BindBlob(6, Serialize(job))
      .BindText(7, job.client())
      .BindOptionalInt(8, sweep)
      .Run();
}

bool OverwriteJob(SqliteConnection& connection, const v1::Job& job) {
  return connection.Query("UPDATE jobs SET state = ?, job = ? WHERE id = ?")
             .BindInt(1, job.state())
             .BindBlob(2, Serialize(job))
             .BindText(3, job.id())
             .Run() > 0;
}

}  // namespace epo
