// The server's command line.
#ifndef EPO_SERVER_OPTIONS_H_
#define EPO_SERVER_OPTIONS_H_

#include <filesystem>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "server/limits.h"
#include "server/log.h"
#include "server/security.h"
#include "server/storage_guard.h"

namespace epo {

struct ServerOptions {
  // The checkpoint's directory.
  std::filesystem::path model;
  std::string device = "auto";
  std::string dtype = "auto";
  // HOST:PORT; port 0 picks a free one.
  std::string listen = "127.0.0.1:50051";
  std::filesystem::path state_dir;
  // HOST:PORT of the metrics; empty for none.
  std::string metrics_listen = "127.0.0.1:9464";
  StorageLimits storage;
  // How long ended jobs are kept.
  absl::Duration retention = absl::InfiniteDuration();
  // Jobs that share the device; the others are queued.
  int max_concurrent_jobs = 64;
  // So many crashes of the server in a job's steps make the job FAILED.
  int max_attempts = 3;
  // How long a drain may take.
  absl::Duration drain_timeout = absl::Seconds(30);
  std::string log_level = "info";
  LogFormat log_format = LogFormat::kText;
  SecurityOptions security;
  Limits limits;
};

// Parses the command line. Without a value the process should exit with `*exit_code`: 0 after
// --help, --version or --new-api-key (printed to stdout), 2 after a usage error (printed to
// stderr).
std::optional<ServerOptions> ParseOptions(int argc, const char* const* argv, int* exit_code);

}  // namespace epo

#endif  // EPO_SERVER_OPTIONS_H_
