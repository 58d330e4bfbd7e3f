#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/command.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

using Row = std::pair<std::string, std::string>;

std::string Rows(const std::vector<Row>& rows) {
  int widest = 0;
  for (const Row& row : rows) widest = std::max(widest, DisplayWidth(row.first));
  std::string out;
  for (const auto& [name, description] : rows) {
    absl::StrAppend(&out, "  ", PadRight(name, widest), "  ", description, "\n");
  }
  return out;
}

std::string Named(const CLI::Option* option) {
  std::string name =
      option->get_positional() ? option->get_name(true, false) : option->get_name(false, true);
  // "-o,--output" reads better with a space.
  if (const size_t comma = name.find(','); comma != std::string::npos) name.insert(comma + 1, " ");
  const std::string& value = option->get_option_text();
  return value.empty() || value == " " ? name : absl::StrCat(name, " ", value);
}

std::vector<Row> ConnectionRows(const CLI::App* root) {
  std::vector<Row> rows;
  for (const CLI::Option* option : root->get_options()) {
    if (option->get_group() == kConnectionGroup) {
      rows.emplace_back(Named(option), option->get_description());
    }
  }
  return rows;
}

// Lines of a terminal that a help text fits.
constexpr int kScreen = 24;

// The text, without its blank lines where it would not fit a screen with them.
std::string Fitted(const std::string& text) {
  if (std::count(text.begin(), text.end(), '\n') <= kScreen) return text;
  return absl::StrReplaceAll(text, {{"\n\n", "\n"}});
}

// Without --help itself, whose reader knows it, and --version, which is where it always is: lines
// are few.
std::vector<Row> OptionRows(const CLI::App* app) {
  std::vector<Row> positionals;
  std::vector<Row> options;
  const CLI::Option* help = app->get_help_ptr();
  for (const CLI::Option* option : app->get_options()) {
    if (option == help || option->check_lname("version") ||
        option->get_group() != help->get_group()) {
      continue;
    }
    (option->get_positional() ? positionals : options)
        .emplace_back(Named(option), option->get_description());
  }
  positionals.insert(positionals.end(), options.begin(), options.end());
  return positionals;
}

std::string Usage(const CLI::App* app) {
  std::string usage = absl::StrCat("Usage: epo ", app->get_name());
  bool optional = false;
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_positional()) continue;
    if (option->get_required()) absl::StrAppend(&usage, " ", Named(option));
    optional |= !option->get_required();
  }
  if (optional) absl::StrAppend(&usage, " [options]");
  for (const CLI::Option* option : app->get_options()) {
    if (!option->get_positional()) continue;
    const bool many = option->get_expected_max() > 1;
    absl::StrAppend(&usage, " ", option->get_name(true, false), many ? "..." : "");
  }
  return usage;
}

class Formatter : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string /*name*/,
                        CLI::AppFormatMode /*mode*/) const override {
    if (const CLI::App* root = app->get_parent(); root != nullptr) {
      std::string rows = Rows(OptionRows(app));
      if (app->get_name() == "info") {
        absl::StrAppend(&rows, "\nFor every command:\n", Rows(ConnectionRows(root)));
      }
      return Fitted(absl::StrCat(Usage(app), "\n", app->get_description(), "\n\n", rows, "\n",
                                 app->get_footer(), "\n"));
    }
    std::vector<Row> commands;
    // With so many commands there is a line for the usage, but none for what it is all for, nor for
    // each of two that belong together.
    for (const CLI::App* command : app->get_subcommands({})) {
      if (command->get_name() == "resume") {
        commands.back() = {"pause, resume", "Hold a job, which keeps what it has; queue it again"};
      } else {
        commands.emplace_back(command->get_name(), command->get_description());
      }
    }
    return Fitted(absl::StrCat("Usage: epo COMMAND [options]    (epo COMMAND --help says more)\n\n",
                               Rows(commands), "\n", Rows(OptionRows(app)), app->get_footer(),
                               "\n"));
  }
};

}  // namespace

void AddTopic(CLI::App* app, const std::string& topic, const std::string& description,
              const std::vector<CLI::Option*>& options) {
  for (CLI::Option* option : options) option->group(topic);
  app->add_flag_callback(
      absl::StrCat("--help-", topic),
      [app, topic] {
        std::vector<Row> rows;
        for (const CLI::Option* option : app->get_options()) {
          if (option->get_group() == topic) {
            rows.emplace_back(Named(option), option->get_description());
          }
        }
        // As the version, a text that ends the command line's parsing.
        throw CLI::CallForVersion(
            absl::StrCat("Options of epo ", app->get_name(), ":\n", Rows(rows)), 0);
      },
      description);
}

std::shared_ptr<CLI::FormatterBase> HelpFormatter() { return std::make_shared<Formatter>(); }

}  // namespace epo::cli
