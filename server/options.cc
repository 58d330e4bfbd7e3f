#include "server/options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "server/store_options.h"

namespace epo {
namespace {

constexpr int kUsageError = 2;
constexpr char kOff[] = "off";
constexpr char kText[] = "text";
constexpr char kJson[] = "json";

std::string DefaultStateDir() {
  if (const char* xdg = std::getenv("XDG_STATE_HOME"); xdg != nullptr && *xdg != '\0') {
    return (std::filesystem::path(xdg) / "epo").string();
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return (std::filesystem::path(home) / ".local" / "state" / "epo").string();
  }
  return "";
}

// Empty when `text` is HOST:PORT, else what is wrong with it, as CLI11's validators answer.
std::string CheckListen(const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return "\"" + text + "\" is not HOST:PORT with a port from 0 to 65535";
  }
  return "";
}

std::string CheckMetricsListen(const std::string& text) {
  if (text.empty() || text == kOff) return "";
  if (text.front() == '[') {
    return "\"" + text + "\" is an IPv6 address, and the metrics are served on IPv4 alone";
  }
  return CheckListen(text);
}

// Whether there is such a device is found out when the model is loaded.
std::string CheckDevice(const std::string& text) {
  absl::string_view number = text;
  int index = 0;
  if (text == "auto" || text == "cpu" ||
      (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index) && index >= 0)) {
    return "";
  }
  return "\"" + text + "\" is none of auto, cpu and cuda:N";
}

}  // namespace

std::optional<ServerOptions> ParseOptions(int argc, const char* const* argv, int* exit_code) {
  ServerOptions options;
  std::string model;
  std::string state_dir = DefaultStateDir();
  std::string log_format = kText;

  CLI::App app{"Keeps a language model resident and runs EPO jobs on it over gRPC.", "epo-server"};
  app.set_version_flag("--version", std::string("epo-server ") + EPO_VERSION);
  app.add_option("--model", model, "Checkpoint directory: config.json, tokenizer.json, safetensors")
      ->required()
      ->check(CLI::Validator(CLI::ExistingDirectory).description(""))
      ->type_name("DIR");
  app.add_option("--device", options.device, "auto, cpu or cuda:N")
      ->check(CLI::Validator(CheckDevice, "", "device"))
      ->type_name("DEVICE")
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "auto, float64, float32, bfloat16 or float16")
      ->check(CLI::IsMember({"auto", "float64", "float32", "bfloat16", "float16"}).description(""))
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("--listen", options.listen, "Address to serve on; port 0 picks a free one")
      ->check(CLI::Validator(CheckListen, "", "listen"))
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--state-dir", state_dir, "Where jobs and their results are kept")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_option("--metrics-listen", options.metrics_listen,
                 "IPv4 address of the Prometheus metrics; off for none")
      ->check(CLI::Validator(CheckMetricsListen, "", "metrics-listen"))
      ->type_name("HOST:PORT")
      ->capture_default_str();
  AddStoreOptions(app, options);
  app.add_option("--max-concurrent-jobs", options.max_concurrent_jobs,
                 "Jobs that share the device; more are queued")
      ->check(CLI::Range(1, 100'000).description(""))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--max-attempts", options.max_attempts,
                 "A job whose steps were under way when the server died fails after so many times")
      ->check(CLI::Range(1, 1'000'000).description(""))
      ->type_name("N")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--drain-timeout",
         [&options](const std::string& text) {
           if (absl::ParseDuration(text, &options.drain_timeout) &&
               options.drain_timeout >= absl::ZeroDuration()) {
             return;
           }
           throw CLI::ValidationError("--drain-timeout",
                                      "\"" + text + "\" is not a duration such as 30s or 2m");
         },
         "From SIGTERM to the process's end, at most")
      ->type_name("DURATION")
      ->default_str(absl::FormatDuration(options.drain_timeout));
  app.add_option("--log-level", options.log_level, "debug, info, warn, error or off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}).description(""))
      ->type_name("LEVEL")
      ->capture_default_str();
  app.add_option("--log-format", log_format, "text, or json for one object a line")
      ->check(CLI::IsMember({kText, kJson}).description(""))
      ->type_name("FORMAT")
      ->capture_default_str();
  AddSecurityOptions(app, options.security);
  AddLimitOptions(app, options.limits);
  app.footer("Example: epo-server --model models/smollm2-135m --listen 127.0.0.1:50051");

  try {
    app.parse(argc, argv);
    if (state_dir.empty()) {
      if (app.count("--state-dir") > 0) {
        throw CLI::ValidationError("--state-dir", "is empty; give a directory, or leave it out");
      }
      throw CLI::RequiredError("--state-dir (neither XDG_STATE_HOME nor HOME is set)");
    }
    if (absl::Status safe = CheckSecurity(options.security, options.listen); !safe.ok()) {
      throw CLI::ValidationError("--listen", std::string(safe.message()));
    }
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      *exit_code = app.exit(error, std::cout, std::cerr);
    } else {
      std::cerr << "epo-server: " << error.what() << " (see epo-server --help)\n";
      *exit_code = kUsageError;
    }
    return std::nullopt;
  }
  if (options.metrics_listen == kOff) options.metrics_listen.clear();
  options.log_format = log_format == kJson ? LogFormat::kJson : LogFormat::kText;
  options.model = model;
  options.state_dir = state_dir;
  return options;
}

}  // namespace epo
