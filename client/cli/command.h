// What every command of `epo` is made of.
#ifndef EPO_CLIENT_CLI_COMMAND_H_
#define EPO_CLIENT_CLI_COMMAND_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/client.h"
#include "client/cli/settings.h"
#include "client/cli/terminal.h"

namespace epo::cli {

// What a running command works with. Not thread-safe.
class Session {
 public:
  Session(Settings settings, Terminal terminal)
      : settings_(std::move(settings)), terminal_(terminal) {}

  const Settings& settings() const { return settings_; }
  const Terminal& terminal() const { return terminal_; }
  bool table() const { return settings_.format == Format::kTable; }
  // The connection, made when first asked for: gRPC starts threads, and some commands must block
  // signals before. Throws CLI::ValidationError when what the settings name for it cannot be used.
  Client& client();

 private:
  Settings settings_;
  Terminal terminal_;
  std::unique_ptr<Client> client_;
};

// Runs a command after the command line was parsed; returns the exit code.
using Action = std::function<int(Session&)>;

// The root command and what its subcommands do.
class Commands {
 public:
  explicit Commands(CLI::App& root) : root_(root) {}

  // A subcommand. `example` is what its help shows; options are added to the returned app.
  CLI::App* Add(const std::string& name, const std::string& description, const std::string& example,
                Action action);
  CLI::App& root() { return root_; }
  // What the parsed subcommand does.
  const Action& Chosen() const;

 private:
  CLI::App& root_;
  std::map<const CLI::App*, Action> actions_;
};

// `epo submit`.
void AddSubmit(Commands& commands);
// `epo sweep` and `epo sweeps`.
void AddSweep(Commands& commands);
// `epo watch` and `epo wait`.
void AddFollow(Commands& commands);
// `epo get`, `list`, `pause`, `resume`, `cancel` and `delete`.
void AddJobs(Commands& commands);
// `epo frontier` and `history`.
void AddResults(Commands& commands);
// `epo score`, `tokenize` and `info`.
void AddModel(Commands& commands);
// `epo attribute`.
void AddAttribute(Commands& commands);
// `epo upload-vector`.
void AddUpload(Commands& commands);
// `epo health`.
void AddHealth(Commands& commands);
// `epo completion`.
void AddCompletion(Commands& commands);

// The required positional JOB; what takes sweeps, too, tells them by their ids.
void AddJobArgument(CLI::App* app, std::string& id);

// Moves `options` of `app`, whose help has no room for them, to the text of a flag --help-TOPIC,
// whose own line in the help has `description`.
void AddTopic(CLI::App* app, const std::string& topic, const std::string& description,
              const std::vector<CLI::Option*>& options);

// Options of the root in this group stand in the help of `epo info`, which has room for them.
inline constexpr char kConnectionGroup[] = "Connection";

// Help of the root and of its subcommands that fits a screen.
std::shared_ptr<CLI::FormatterBase> HelpFormatter();

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_COMMAND_H_
