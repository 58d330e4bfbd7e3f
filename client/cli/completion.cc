#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_replace.h>

#include <memory>
#include <string>
#include <vector>

#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/output.h"

namespace epo::cli {
namespace {

constexpr char kFormats[] = "table json jsonl csv";
constexpr char kStates[] = "queued running paused succeeded failed cancelled";
constexpr char kHistories[] = "full frontier";
constexpr char kShells[] = "bash zsh fish";
// The newest jobs' and sweeps' ids; two commands, since fish has no braces around them.
constexpr char kJobIds[] =
    R"sh(epo list --limit 50 -o jsonl 2>/dev/null | sed -n 's/^{"id":"\([^"]*\)".*/\1/p'; )sh"
    R"sh(epo sweeps --limit 50 -o jsonl 2>/dev/null | sed -n 's/^{"id":"\([^"]*\)".*/\1/p')sh";

// @NAME@ stands for what depends on the commands.
constexpr char kBash[] =
    R"sh(# epo completion bash > ~/.local/share/bash-completion/completions/epo
_epo() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local command= options= words= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case " @COMMANDS@ " in *" ${COMP_WORDS[i]} "*) command=${COMP_WORDS[i]}; break;; esac
  done
  case $command in
@OPTIONS@  esac
  case $previous in
    -o|--output) words='@FORMATS@';;
    --state) words='@STATES@';;
    --history) words='@HISTORIES@';;
    *)
      if [[ $current == -* ]]; then
        words="$options @GLOBALS@"
      elif [[ -z $command ]]; then
        words='@COMMANDS@'
      else
        case $command in
          completion) words='@SHELLS@';;
          @JOB_COMMANDS@) words=$(@JOB_IDS@);;
        esac
      fi;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _epo epo
)sh";

constexpr char kZsh[] = R"sh(#compdef epo
# epo completion zsh > a folder of $fpath, as _epo
_epo_jobs() {
  local -a jobs
  jobs=(${(f)"$(@JOB_IDS@)"})
  compadd -a jobs
}
_epo() {
  local -a commands globals
  commands=(
@COMMANDS@  )
  globals=(@GLOBALS@)
  local context state line
  _arguments -C $globals '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands; return;;
    argument) ;;
    *) return;;
  esac
  case $line[1] in
@CASES@  esac
}
if [[ $funcstack[1] == _epo ]]; then _epo "$@"; else compdef _epo epo; fi
)sh";

struct CompletionOption {
  std::string short_name;  // without the dash; may be empty
  std::string long_name;   // without the dashes
  std::string description;
  bool takes_value = false;
  // The values to choose from, by spaces; empty for free ones.
  std::string values;
};

struct CompletionCommand {
  std::string name;
  std::string description;
  std::vector<CompletionOption> options;
  bool takes_job = false;
};

std::vector<CompletionOption> OptionsOf(const CLI::App* app) {
  std::vector<CompletionOption> options;
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_positional()) continue;
    CompletionOption entry;
    if (!option->get_snames().empty()) entry.short_name = option->get_snames().front();
    entry.long_name = option->get_lnames().front();
    entry.description = option->get_description();
    entry.takes_value = option->get_items_expected_max() > 0;
    if (entry.long_name == "output") entry.values = kFormats;
    if (entry.long_name == "format") entry.values = "html svg png";
    if (entry.long_name == "figure") entry.values = "frontier evolution thresholds";
    if (entry.long_name == "state") entry.values = kStates;
    if (entry.long_name == "history") entry.values = kHistories;
    options.push_back(std::move(entry));
  }
  return options;
}

std::vector<CompletionCommand> CommandsOf(const CLI::App* root) {
  std::vector<CompletionCommand> commands;
  for (const CLI::App* app : root->get_subcommands({})) {
    CompletionCommand command{app->get_name(), app->get_description(), OptionsOf(app)};
    for (const CLI::Option* option : app->get_options()) {
      command.takes_job |= option->get_positional() && option->get_name() == "JOB";
    }
    commands.push_back(std::move(command));
  }
  return commands;
}

std::string Words(const std::vector<CompletionOption>& options) {
  return absl::StrJoin(options, " ", [](std::string* out, const CompletionOption& option) {
    absl::StrAppend(out, "--", option.long_name);
  });
}

std::string Names(const std::vector<CompletionCommand>& commands) {
  return absl::StrJoin(commands, " ", [](std::string* out, const CompletionCommand& command) {
    absl::StrAppend(out, command.name);
  });
}

std::string JobCommands(const std::vector<CompletionCommand>& commands, const char* separator) {
  std::vector<std::string> names;
  for (const auto& command : commands) {
    if (command.takes_job) names.push_back(command.name);
  }
  return absl::StrJoin(names, separator);
}

std::string Bash(const std::vector<CompletionCommand>& commands,
                 const std::vector<CompletionOption>& globals) {
  std::string options;
  for (const auto& command : commands) {
    absl::StrAppend(&options, "    ", command.name, ") options='", Words(command.options), "';;\n");
  }
  return absl::StrReplaceAll(kBash, {{"@COMMANDS@", Names(commands)},
                                     {"@OPTIONS@", options},
                                     {"@GLOBALS@", Words(globals)},
                                     {"@FORMATS@", kFormats},
                                     {"@STATES@", kStates},
                                     {"@HISTORIES@", kHistories},
                                     {"@SHELLS@", kShells},
                                     {"@JOB_COMMANDS@", JobCommands(commands, "|")},
                                     {"@JOB_IDS@", kJobIds}});
}

std::string ZshSpec(const CompletionOption& option) {
  const std::string description = absl::StrReplaceAll(
      option.description, {{"'", "'\\''"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
  const std::string value = !option.takes_value     ? ""
                            : option.values.empty() ? ":value: "
                                                    : absl::StrCat(":value:(", option.values, ")");
  std::string spec = absl::StrCat("'--", option.long_name, "[", description, "]", value, "'");
  if (!option.short_name.empty()) {
    absl::StrAppend(&spec, " '-", option.short_name, "[", description, "]", value, "'");
  }
  return spec;
}

std::string ZshSpecs(const std::vector<CompletionOption>& options) {
  return absl::StrJoin(options, " ", [](std::string* out, const CompletionOption& option) {
    absl::StrAppend(out, ZshSpec(option));
  });
}

std::string Zsh(const std::vector<CompletionCommand>& commands,
                const std::vector<CompletionOption>& globals) {
  std::string names;
  std::string cases;
  for (const auto& command : commands) {
    absl::StrAppend(&names, "    '", command.name, ":",
                    absl::StrReplaceAll(command.description, {{"'", "'\\''"}, {":", "\\:"}}),
                    "'\n");
    const std::string argument = command.takes_job ? " '1:job:_epo_jobs'"
                                 : command.name == "completion"
                                     ? absl::StrCat(" '1:shell:(", kShells, ")'")
                                     : "";
    absl::StrAppend(&cases, "    ", command.name, ") _arguments $globals ",
                    ZshSpecs(command.options), argument, ";;\n");
  }
  return absl::StrReplaceAll(kZsh, {{"@COMMANDS@", names},
                                    {"@CASES@", cases},
                                    {"@GLOBALS@", ZshSpecs(globals)},
                                    {"@JOB_IDS@", kJobIds}});
}

std::string FishQuoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

std::string FishOption(const std::string& condition, const CompletionOption& option) {
  return absl::StrCat("complete -c epo", condition,
                      option.short_name.empty() ? "" : absl::StrCat(" -s ", option.short_name),
                      " -l ", option.long_name, option.takes_value ? " -x" : "",
                      option.values.empty() ? "" : absl::StrCat(" -a '", option.values, "'"),
                      " -d ", FishQuoted(option.description), "\n");
}

std::string Fish(const std::vector<CompletionCommand>& commands,
                 const std::vector<CompletionOption>& globals) {
  std::string out =
      "# epo completion fish > ~/.config/fish/completions/epo.fish\ncomplete -c epo -f\n";
  for (const auto& option : globals) absl::StrAppend(&out, FishOption("", option));
  for (const auto& command : commands) {
    absl::StrAppend(&out, "complete -c epo -n __fish_use_subcommand -a ", command.name, " -d ",
                    FishQuoted(command.description), "\n");
    const std::string condition =
        absl::StrCat(" -n '__fish_seen_subcommand_from ", command.name, "'");
    for (const auto& option : command.options) absl::StrAppend(&out, FishOption(condition, option));
  }
  absl::StrAppend(&out, "complete -c epo -n '__fish_seen_subcommand_from completion' -a '", kShells,
                  "'\n", "complete -c epo -n '__fish_seen_subcommand_from ",
                  JobCommands(commands, " "), "' -a ", FishQuoted(absl::StrCat("(", kJobIds, ")")),
                  "\n");
  return out;
}

}  // namespace

void AddCompletion(Commands& commands) {
  const auto shell = std::make_shared<std::string>();
  const CLI::App* root = &commands.root();
  commands
      .Add("completion", "Print a shell's completion script",
           "Example: epo completion bash > ~/.local/share/bash-completion/completions/epo",
           [shell, root](Session&) {
             const auto all = CommandsOf(root);
             const auto globals = OptionsOf(root);
             Print(*shell == "bash"  ? Bash(all, globals)
                   : *shell == "zsh" ? Zsh(all, globals)
                                     : Fish(all, globals));
             return static_cast<int>(kDone);
           })
      ->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->option_text(" ");
}

}  // namespace epo::cli
