// API keys: 256 random bits each, of which the server knows the SHA-256 alone.
//
// The file has one key a line, "NAME ROLES sha256:HEX", and lines that are empty or begin with '#'.
// NAME is what the key's jobs belong to: letters, digits and ._@-, at most 64. ROLES is one or more
// of read, submit and admin, separated by commas; each includes those before it. Several lines may
// have the same name: keys of one client, for instance while one replaces another.
#ifndef EPO_SERVER_API_KEYS_H_
#define EPO_SERVER_API_KEYS_H_

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/call_context.h"

namespace epo {

struct NewApiKey {
  // For the client.
  std::string key;
  // For the file.
  std::string line;
};

// A fresh key for "NAME:ROLES". INVALID_ARGUMENT says what is wrong with it.
absl::StatusOr<NewApiKey> MakeApiKey(std::string_view name_and_roles);

struct ApiKey {
  std::array<uint8_t, 32> sha256;
  std::string client;
  Role role;
};

// FAILED_PRECONDITION names `file` and the line for anything that is not in the format, for a key
// that occurs twice, and for a text without keys.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text,
                                                 const std::filesystem::path& file);

// The keys of a file. Thread-safe.
class ApiKeys {
 public:
  // FAILED_PRECONDITION when the file cannot be read or parsed.
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Open(std::filesystem::path file);

  // The client and role of `key`; null for an unknown key. Takes the same time for every key that
  // is not known.
  std::shared_ptr<const ApiKey> Find(std::string_view key) const;

  // Reads the file again. What is wrong with it goes to the log, and the keys stay as they are.
  void Reload();

  const std::filesystem::path& file() const { return file_; }

 private:
  using Keys = std::vector<ApiKey>;

  ApiKeys(std::filesystem::path file, std::string text, Keys keys);

  const std::filesystem::path file_;
  mutable absl::Mutex mutex_;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Keys> keys_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace epo

#endif  // EPO_SERVER_API_KEYS_H_
