#include "server/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/file_watch.h"

namespace epo {
namespace {

// Lets scanners for leaked secrets, and people, tell what it is.
constexpr char kKeyPrefix[] = "epo_";
constexpr char kHashPrefix[] = "sha256:";
constexpr size_t kKeyBytes = 32;
constexpr size_t kMaxNameBytes = 64;

constexpr char kFormat[] =
    "a line is NAME ROLES sha256:HEX, as epo-server --new-api-key NAME:ROLES prints it";

std::array<uint8_t, 32> Sha256(std::string_view text) {
  std::array<uint8_t, 32> digest;
  SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(), digest.data());
  return digest;
}

bool SameDigest(const std::array<uint8_t, 32>& a, const std::array<uint8_t, 32>& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ||
                  c == '@' || c == '-';
         });
}

absl::Status BadName(absl::string_view name) {
  return absl::InvalidArgumentError(absl::StrCat("\"", absl::CEscape(name),
                                                 "\" is no name; give 1 to ", kMaxNameBytes,
                                                 " letters, digits or any of . _ @ -"));
}

absl::StatusOr<Role> ParseRoles(absl::string_view roles) {
  Role role = Role::kRead;
  for (const absl::string_view name : absl::StrSplit(roles, ',')) {
    if (name == "submit") {
      role = std::max(role, Role::kSubmit);
    } else if (name == "admin") {
      role = Role::kAdmin;
    } else if (name != "read") {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", absl::CEscape(name), "\" is no role; the roles are read, submit and admin"));
    }
  }
  return role;
}

absl::StatusOr<ApiKey> ParseLine(absl::string_view line) {
  // No word of a line has a '#'.
  line = line.substr(0, line.find('#'));
  const std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (words.size() != 3) return absl::InvalidArgumentError(kFormat);
  if (!IsName(words[0])) return BadName(words[0]);
  const absl::StatusOr<Role> role = ParseRoles(words[1]);
  if (!role.ok()) return role.status();
  absl::string_view hex = words[2];
  ApiKey key{{}, std::string(words[0]), *role};
  if (!absl::ConsumePrefix(&hex, kHashPrefix) || hex.size() != 2 * key.sha256.size() ||
      !std::all_of(hex.begin(), hex.end(),
                   [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); })) {
    // Not repeated in the message: it may be a key in plain.
    return absl::InvalidArgumentError(
        absl::StrCat("the third word is not sha256: and 64 hexadecimal digits; ", kFormat));
  }
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), key.sha256.begin());
  return key;
}

}  // namespace

absl::StatusOr<NewApiKey> MakeApiKey(std::string_view name_and_roles) {
  const absl::string_view text(name_and_roles.data(), name_and_roles.size());
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  if (!IsName(parts.first)) return BadName(parts.first);
  if (parts.second.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", parts.first, "\" has no roles; give NAME:ROLES, as in ", parts.first,
                     ":submit; the roles are read, submit and admin"));
  }
  if (auto role = ParseRoles(parts.second); !role.ok()) return role.status();
  std::string bytes(kKeyBytes, '\0');
  if (RAND_bytes(reinterpret_cast<uint8_t*>(bytes.data()), kKeyBytes) != 1) {
    return absl::InternalError("the system has no random bytes");
  }
  NewApiKey made;
  made.key = absl::StrCat(kKeyPrefix, absl::WebSafeBase64Escape(bytes));
  const auto digest = Sha256(made.key);
  made.line = absl::StrCat(
      parts.first, " ", parts.second, " ", kHashPrefix,
      absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()}));
  return made;
}

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text,
                                                 const std::filesystem::path& file) {
  std::vector<ApiKey> keys;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    const auto error = [&](absl::string_view why) {
      return absl::FailedPreconditionError(absl::StrCat(file.string(), ":", number, ": ", why));
    };
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    absl::StatusOr<ApiKey> key = ParseLine(line);
    if (!key.ok()) return error(key.status().message());
    for (const ApiKey& other : keys) {
      if (SameDigest(other.sha256, key->sha256)) {
        return error(absl::StrCat("this is the key of ", other.client, " above; remove one"));
      }
    }
    keys.push_back(*std::move(key));
  }
  if (keys.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(file.string(), " holds no key; ", kFormat));
  }
  return keys;
}

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Open(std::filesystem::path file) {
  absl::StatusOr<std::string> text = ReadWholeFile(file);
  if (!text.ok()) return text.status();
  absl::StatusOr<Keys> keys = ParseApiKeys(*text, file);
  if (!keys.ok()) return keys.status();
  WarnIfOthersCanRead(file);
  return std::unique_ptr<ApiKeys>(new ApiKeys(std::move(file), *std::move(text), *std::move(keys)));
}

ApiKeys::ApiKeys(std::filesystem::path file, std::string text, Keys keys)
    : file_(std::move(file)),
      text_(std::move(text)),
      keys_(std::make_shared<const Keys>(std::move(keys))) {}

std::shared_ptr<const ApiKey> ApiKeys::Find(std::string_view key) const {
  const std::array<uint8_t, 32> digest = Sha256(key);
  std::shared_ptr<const Keys> keys;
  {
    absl::MutexLock lock(&mutex_);
    keys = keys_;
  }
  const ApiKey* found = nullptr;
  for (const ApiKey& each : *keys) {
    if (SameDigest(each.sha256, digest)) found = &each;
  }
  return {std::move(keys), found};
}

void ApiKeys::Reload() {
  absl::StatusOr<std::string> text = ReadWholeFile(file_);
  absl::StatusOr<Keys> keys = text.ok() ? ParseApiKeys(*text, file_) : text.status();
  if (!keys.ok()) {
    spdlog::error("the API keys stay as they are: {}", std::string(keys.status().message()));
    return;
  }
  absl::MutexLock lock(&mutex_);
  if (text_ == *text) return;
  text_ = *std::move(text);
  keys_ = std::make_shared<const Keys>(*std::move(keys));
  spdlog::info("API keys read again: {} in {}", keys_->size(), file_.string());
  WarnIfOthersCanRead(file_);
}

}  // namespace epo
