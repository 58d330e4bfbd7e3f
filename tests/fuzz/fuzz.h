// What the fuzzers share. Each one is a file NAME_fuzzer.cc with LLVMFuzzerTestOneInput: it takes
// any bytes, and stops the program where code breaks what its header promises.
#ifndef EPO_TESTS_FUZZ_FUZZ_H_
#define EPO_TESTS_FUZZ_FUZZ_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/status/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace epo {

inline void Require(bool promise, std::string_view what) {
  if (promise) return;
  std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// An input as a file in memory, for code that reads files.
class InputFile {
 public:
  explicit InputFile(std::string_view bytes) : fd_(memfd_create("input", MFD_CLOEXEC)) {
    Require(
        fd_ >= 0 && write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
        "a file in memory");
  }
  ~InputFile() { close(fd_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

// What bad input gets: INVALID_ARGUMENT, in one line that opens with the file's name and is short
// enough to read.
inline void RequireGoodError(const absl::Status& status, const std::string& file) {
  constexpr size_t kMostBytes = 1000;
  const std::string message(status.message());
  Require(status.code() == absl::StatusCode::kInvalidArgument, status.ToString());
  Require(message.starts_with(file + ": "), message);
  Require(message.find('\n') == std::string::npos, message);
  Require(message.size() < kMostBytes, message);
}

}  // namespace epo

#endif  // EPO_TESTS_FUZZ_FUZZ_H_
