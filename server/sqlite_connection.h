// One SQLite connection with its prepared statements, and the mapping of SQLite's errors to Status.
#ifndef EPO_SERVER_SQLITE_CONNECTION_H_
#define EPO_SERVER_SQLITE_CONNECTION_H_

#include <SQLiteCpp/Database.h>
#include <SQLiteCpp/Exception.h>
#include <SQLiteCpp/Statement.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"

namespace epo {

// A prepared statement in use: parameters are bound by position from 1 and columns read from 0. Its
// end resets the statement, and with it gives up the snapshot that an unfinished SELECT holds.
// Throws SQLite::Exception.
class SqliteQuery {
 public:
  explicit SqliteQuery(SQLite::Statement& statement) : statement_(statement) {}
  SqliteQuery(const SqliteQuery&) = delete;
  SqliteQuery& operator=(const SqliteQuery&) = delete;
  ~SqliteQuery() { statement_.tryReset(); }

  SqliteQuery& BindText(int parameter, const std::string& text);
  // Binds NULL for an empty text.
  SqliteQuery& BindOptionalText(int parameter, const std::string& text);
  SqliteQuery& BindBlob(int parameter, const std::string& bytes);
  SqliteQuery& BindInt(int parameter, int64_t value);
  // Binds NULL for none.
  SqliteQuery& BindOptionalInt(int parameter, std::optional<int64_t> value);

  // Advances to the next row; false after the last one.
  bool Next() { return statement_.executeStep(); }
  // Runs a statement that returns no rows; the number of rows it changed.
  int Run() { return statement_.exec(); }

  int64_t Int(int column) const { return statement_.getColumn(column).getInt64(); }
  std::string Blob(int column) const { return statement_.getColumn(column).getString(); }

 private:
  SQLite::Statement& statement_;
};

// For one thread at a time. Throws SQLite::Exception.
class SqliteConnection {
 public:
  // `flags` are SQLite::OPEN_*.
  SqliteConnection(const std::filesystem::path& file, int flags);

  SQLite::Database& database() { return database_; }
  // `sql` is compiled at its first use. One query at a time per text.
  SqliteQuery Query(const std::string& sql);

 private:
  SQLite::Database database_;
  std::unordered_map<std::string, SQLite::Statement> statements_;
};

// "cannot `operation` in `file`: ...": RESOURCE_EXHAUSTED when there is no space, UNAVAILABLE for
// what may pass (locks, I/O), DATA_LOSS for a damaged file, FAILED_PRECONDITION for one that may
// not be opened or written, else INTERNAL.
absl::Status SqliteStatus(const SQLite::Exception& error, const std::filesystem::path& file,
                          const std::string& operation);

// Brings the database behind `connection` to this binary's schema, each step in a transaction.
// FAILED_PRECONDITION, with nothing changed, for a newer schema or a database of another program.
// Throws SQLite::Exception.
absl::Status MigrateSchema(SqliteConnection& connection, const std::filesystem::path& file);

}  // namespace epo

#endif  // EPO_SERVER_SQLITE_CONNECTION_H_
