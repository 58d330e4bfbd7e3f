#include "client/cli/command.h"

namespace epo::cli {

Client& Session::client() {
  if (client_ == nullptr) {
    absl::StatusOr<Credentials> credentials = ReadCredentials(settings_);
    if (!credentials.ok()) throw CLI::ValidationError(std::string(credentials.status().message()));
    client_ = std::make_unique<Client>(settings_.server, *std::move(credentials));
  }
  return *client_;
}

CLI::App* Commands::Add(const std::string& name, const std::string& description,
                        const std::string& example, Action action) {
  CLI::App* app = root_.add_subcommand(name, description);
  // Lets --server and -o stand behind the subcommand as well.
  app->fallthrough();
  app->footer(example);
  actions_[app] = std::move(action);
  return app;
}

const Action& Commands::Chosen() const { return actions_.at(root_.get_subcommands().front()); }

void AddJobArgument(CLI::App* app, std::string& id) {
  app->add_option("JOB", id, "The job's id")->required()->option_text(" ");
}

}  // namespace epo::cli
