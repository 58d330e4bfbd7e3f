// `epo`, the command line of the EPO service.
#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/output.h"
#include "client/cli/report.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

int UsageError(const std::string& message, const std::string& command) {
  std::fprintf(stderr, "epo: %s\nepo%s --help shows the usage\n", Escape(message).c_str(),
               command.empty() ? "" : (" " + command).c_str());
  return kUsage;
}

absl::StatusOr<Settings> ReadSettings(const PartialSettings& flags) {
  const auto profile = ReadProfile(ProfilePath());
  if (!profile.ok()) return profile.status();
  return ResolveSettings(flags, ReadEnvironment(), *profile);
}

// CLI11 only misses a subcommand where there is an unknown one.
std::string Message(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> rest = app.remaining();
  if (!app.get_subcommands().empty() || rest.empty()) return error.what();
  const bool option = rest.front().front() == '-';
  return absl::StrCat("unknown ", option ? "option" : "command", " '", rest.front(), "'");
}

void AddConnectionOptions(CLI::App& app, PartialSettings& flags) {
  const auto add = [&](const char* name, std::optional<std::string>& value,
                       const char* description) {
    app.add_option(name, value, description)->option_text("FILE")->group(kConnectionGroup);
  };
  app.add_flag_callback(
         "--tls", [&flags] { flags.tls = "true"; }, "Encrypt, and check the server (EPO_TLS=1)")
      ->group(kConnectionGroup);
  add("--tls-ca", flags.tls_ca, "Whom to trust; the system's authorities (EPO_TLS_CA)");
  add("--tls-cert", flags.tls_cert, "A certificate of the client's own (EPO_TLS_CERT)");
  add("--tls-key", flags.tls_key, "The certificate's key (EPO_TLS_KEY)");
  add("--api-key-file", flags.api_key_file, "The API key (EPO_API_KEY_FILE; EPO_API_KEY: the key)");
}

// Of an option that holds one value the last one counts, so that who wraps a command line can add
// to it.
void LetTheLastWin(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (!option->get_positional() && option->get_items_expected_max() == 1) option->take_last();
  }
  for (CLI::App* command : app.get_subcommands({})) LetTheLastWin(*command);
}

int Run(std::vector<std::string> arguments) {
  CLI::App app("Searches a served language model for prompts that excite what is inside (EPO).",
               "epo");
  Commands commands(app);
  PartialSettings flags;
  app.formatter(HelpFormatter());
  app.set_help_flag("-h,--help", "Show this help");
  app.add_option("--server", flags.server,
                 "127.0.0.1:50051, or EPO_SERVER; TLS: see epo info --help")
      ->option_text("ADDR");
  app.add_option("-o,--output", flags.output, "table, json or jsonl; of frontiers csv, too")
      ->option_text("FORMAT");
  AddConnectionOptions(app, flags);
  app.set_version_flag("--version", "epo " EPO_VERSION, "Show the version");
  app.require_subcommand(1);
  app.footer("Exit: 0 done, 1 failed, 2 usage, 3 cancelled, 8 pending, 64+N gRPC, 78 no server");
  AddSubmit(commands);
  AddSweep(commands);
  AddFollow(commands);
  AddJobs(commands);
  AddResults(commands);
  AddReport(commands);
  AddModel(commands);
  AddAttribute(commands);
  AddUpload(commands);
  AddHealth(commands);
  AddCompletion(commands);
  LetTheLastWin(app);

  if (arguments.empty()) {
    std::fputs(app.help().c_str(), stderr);
    return kUsage;
  }
  std::string command;
  try {
    Protect(arguments);
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
    command = app.get_subcommands().front()->get_name();
    const auto settings = ReadSettings(flags);
    if (!settings.ok()) return UsageError(std::string(settings.status().message()), "");
    if (settings->format == Format::kCsv && command != "frontier") {
      return UsageError("-o csv is for epo frontier alone; give table, json or jsonl", command);
    }
    Session session(*settings, DetectTerminal());
    return commands.Chosen()(session);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    Print((chosen.empty() ? &app : chosen.front())->help());
    return kDone;
  } catch (const CLI::CallForVersion& version) {
    Print(std::string(version.what()) + "\n");
    return kDone;
  } catch (const CLI::ParseError& error) {
    if (const auto chosen = app.get_subcommands(); !chosen.empty())
      command = chosen.front()->get_name();
    return UsageError(Message(app, error), command);
  }
}

int Main(int argc, char** argv) {
  try {
    return Run({argv + 1, argv + argc});
  } catch (const OutputError& error) {
    // The reader has seen enough, as in `epo history JOB | head`.
    if (error.error == EPIPE) return kDone;
    std::fprintf(stderr, "epo: cannot write to standard output: %s\n", std::strerror(error.error));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "epo: %s\n", Escape(error.what()).c_str());
  }
  return kUsage;
}

}  // namespace
}  // namespace epo::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  // gRPC's own log lines would run through the display; what matters of them is in the status.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return epo::cli::Main(argc, argv);
}
