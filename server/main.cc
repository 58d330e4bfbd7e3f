// epo-server: the process.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/options.h"
#include "server/server.h"

namespace epo {
namespace {

// OpenMP's threads spin while they wait for each other. Where other processes want the cores too, a
// step then takes 10 times as long; sleeping costs little in any case. The OpenMP runtime reads its
// settings before main(), hence the second start.
void LetComputeThreadsSleep(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) execv(self.c_str(), argv);
}

// How long a process that is to end at once waits for the note that no job is at work.
constexpr absl::Duration kRestGrace = absl::Seconds(2);

// Takes SIGINT, SIGTERM and, unless the process was started to outlive its terminal, SIGHUP from
// the whole process. While the server serves, the first asks for an orderly stop; otherwise, and at
// the second, the process ends at once: what is acknowledged is on the disk. Constructed before any
// other thread, so that all inherit the mask, and never destroyed.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    struct sigaction hangup;
    if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
      sigaddset(&set_, SIGHUP);
    }
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::thread([this] { Run(); }).detach();
  }

  void ServeUntilSignal() {
    serving_ = true;
    stop_.WaitForNotification();
  }

  // The store has it that no job is at work: whoever ends the process now blames nobody.
  void AtRest() { at_rest_.Notify(); }

 private:
  void Run() {
    int signal = 0;
    sigwait(&set_, &signal);
    if (!serving_) {
      spdlog::info("{}: stopping before anything was served", strsignal(signal));
      std::_Exit(EXIT_SUCCESS);
    }
    spdlog::info("{}: stopping after the step under way; once more stops at once",
                 strsignal(signal));
    stop_.Notify();
    sigwait(&set_, &signal);
    spdlog::warn("{}: stopping at once", strsignal(signal));
    at_rest_.WaitForNotificationWithTimeout(kRestGrace);
    std::_Exit(128 + signal);
  }

  sigset_t set_;
  std::atomic<bool> serving_ = false;
  absl::Notification stop_;
  absl::Notification at_rest_;
};

int Main(int argc, char** argv) {
  LetComputeThreadsSleep(argv);
  int exit_code = 0;
  const std::optional<ServerOptions> options = ParseOptions(argc, argv, &exit_code);
  if (!options.has_value()) return exit_code;
  StartLog(options->log_level, options->log_format);
  static auto* const signals = new Signals;

  auto server = Server::Start(*options);
  absl::Status status = server.status();
  if (status.ok()) status = (*server)->Serve();
  if (!status.ok()) {
    spdlog::error("{}", std::string(status.message()));
    return EXIT_FAILURE;
  }
  signals->ServeUntilSignal();
  (*server)->StopRounds();
  signals->AtRest();
  if (!(*server)->Drain()) {
    spdlog::warn("stopped without the end of the step under way, which will be run again");
    spdlog::default_logger()->flush();
    std::_Exit(EXIT_SUCCESS);
  }
  spdlog::info("stopped");
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace epo

int main(int argc, char** argv) { return epo::Main(argc, argv); }
