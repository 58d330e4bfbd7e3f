#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/arguments.h"
#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/json.h"
#include "client/cli/objective_flags.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

struct AttributeOptions {
  ObjectiveFlags objective;
  const CLI::App* app = nullptr;
  const CLI::Option* text = nullptr;
  const CLI::Option* ids = nullptr;
  std::optional<std::string> job;
  std::optional<int32_t> point, substitutes;
};

// "..." and what the target becomes with it.
std::string SubstituteText(const v1::Substitute& substitute) {
  return absl::StrCat(Quote(substitute.text()), " ", ScoreCell(substitute.target()));
}

std::vector<std::string> TokenRow(const v1::TokenAttribution& token) {
  std::vector<v1::Substitute> ranked(token.substitutes().begin(), token.substitutes().end());
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.target() > b.target(); });
  std::vector<std::string> best;
  for (size_t i = 0; i < std::min<size_t>(3, ranked.size()); ++i) {
    best.push_back(SubstituteText(ranked[i]));
  }
  return {absl::StrCat(token.position()),  Quote(token.text()),
          ScoreCell(token.drop_to_best()), ScoreCell(token.drop_to_worst()),
          absl::StrJoin(best, ", "),       ranked.empty() ? "-" : SubstituteText(ranked.back())};
}

// Fills `request` from the flags; gives the flag of its prompt.
std::vector<std::string> ReadSubject(const AttributeOptions& options, Session& session,
                                     v1::AttributeRequest& request, ObjectiveRequest& objective,
                                     grpc::Status* status) {
  const auto prompts = CollectPrompts(options.app, options.text, options.ids);
  if (options.job) {
    if (!prompts.empty()) throw CLI::ValidationError("--job", "names the prompt; leave TEXT out");
    if (const std::string flag = GivenObjectiveFlag(options.objective); !flag.empty()) {
      throw CLI::ValidationError(flag, "is not said beside --job, which has its own objective");
    }
    request.mutable_point()->set_job(*options.job);
    request.mutable_point()->set_index(options.point.value_or(0));
    return {};
  }
  if (options.point) throw CLI::ValidationError("--point", "is a point of a --job's frontier");
  if (prompts.size() != 1) {
    throw CLI::ValidationError("TEXT",
                               absl::StrCat("one prompt or --job is wanted, not ", prompts.size()));
  }
  objective = ReadObjective(options.objective, session, status);
  *request.mutable_objective() = objective.objective;
  SetContexts(objective.contexts, request);
  *request.mutable_prompt() = prompts[0].prompt;
  return {prompts[0].flag};
}

int Attribute(Session& session, const AttributeOptions& options) {
  v1::AttributeRequest request;
  ObjectiveRequest objective;
  grpc::Status status;
  const std::vector<std::string> prompt_flags =
      ReadSubject(options, session, request, objective, &status);
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (options.substitutes) request.set_substitutes(*options.substitutes);
  if (status = session.client().Connect(); !status.ok()) {
    return ReportError(status, session.settings().server);
  }
  grpc::ClientContext context;
  session.client().Authorize(context);
  const auto reader = session.client().stub().Attribute(&context, request);
  ListPrinter printer("tokens", session.settings().format);
  v1::Frontier prompt;
  std::vector<std::vector<std::string>> rows;
  v1::AttributeResponse response;
  while (reader->Read(&response)) {
    if (response.has_prompt()) {
      *prompt.add_points() = response.prompt();
      if (!session.table()) printer.Lead("prompt", ToJson(response.prompt()));
    } else if (session.table()) {
      rows.push_back(TokenRow(response.token()));
    } else {
      printer.Add(ToJson(response.token()));
    }
  }
  if (status = reader->Finish(); !status.ok()) {
    return ReportError(status, session.settings().server, prompt_flags, objective.term_flags);
  }
  if (!session.table()) {
    printer.Finish();
    return kDone;
  }
  const bool color = session.terminal().color_stdout;
  Print(JoinLines(FrontierLines(prompt, 0, 0, color)));
  Print("\n");
  Print(JoinLines(TableLines({{"position", true},
                              {"token"},
                              {"drop to best", true},
                              {"drop to worst", true},
                              {"best three"},
                              {"worst"}},
                             rows, 0, color)));
  return kDone;
}

}  // namespace

void AddAttribute(Commands& commands) {
  const auto options = std::make_shared<AttributeOptions>();
  CLI::App* app =
      commands.Add("attribute", "Show what a prompt's target owes to each of its tokens",
                   "Example: epo attribute --job JOB --point 3",
                   [options](Session& session) { return Attribute(session, *options); });
  options->app = app;
  app->add_option("--job", options->job, "A prompt of this job's frontier, under its objective")
      ->option_text("JOB");
  app->add_option("--point", options->point, "... which: 0, the most fluent one, by default")
      ->option_text("N");
  app->add_option("--substitutes", options->substitutes, "Other tokens to try in each place (32)")
      ->option_text("K");
  AddObjectiveFlags(app, options->objective);
  options->ids =
      AddPromptOption(app, "--ids", "A prompt as token ids, as in 464,3139")->option_text("IDS");
  options->text =
      AddPromptOption(app, "TEXT", "A prompt; \"--\" before one that begins with a dash");
}

}  // namespace epo::cli
