#include "client/cli/read_file.h"

#include <absl/cleanup/cleanup.h>
#include <absl/strings/str_cat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace epo::cli {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  // Of C, whose errors say why: a stream opens a directory, and then throws.
  std::FILE* file = std::fopen(path.c_str(), "rb");
  const auto close = absl::MakeCleanup([file] {
    if (file != nullptr) std::fclose(file);
  });
  std::string content;
  char part[1 << 16];
  size_t size = 0;
  while (file != nullptr && (size = std::fread(part, 1, sizeof(part), file)) > 0) {
    content.append(part, size);
  }
  if (file == nullptr || std::ferror(file) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cannot be read: ", std::strerror(errno)));
  }
  return content;
}

}  // namespace epo::cli
