#include <absl/strings/str_cat.h>

#include <memory>
#include <nlohmann/json.hpp>

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

// A thousand prompts on a CPU, behind running jobs.
constexpr absl::Duration kScoreTimeout = absl::Hours(1);

struct ScoreOptions {
  ObjectiveFlags objective;
  const CLI::App* app = nullptr;
  const CLI::Option* text = nullptr;
  const CLI::Option* ids = nullptr;
};

int Score(Session& session, const ScoreOptions& options) {
  grpc::Status status;
  ObjectiveRequest objective = ReadObjective(options.objective, session, &status);
  if (!status.ok()) return ReportError(status, session.settings().server);
  v1::ScoreRequest request;
  *request.mutable_objective() = std::move(objective.objective);
  SetContexts(std::move(objective.contexts), request);
  std::vector<std::string> prompt_flags;
  for (auto& [prompt, flag] : CollectPrompts(options.app, options.text, options.ids)) {
    *request.add_prompts() = prompt;
    prompt_flags.push_back(flag);
  }
  if (prompt_flags.empty()) throw CLI::RequiredError("TEXT or --ids");
  v1::ScoreResponse response;
  status = session.client().Call(&Client::Stub::Score, request, &response, kScoreTimeout);
  if (!status.ok()) {
    return ReportError(status, session.settings().server, prompt_flags, objective.term_flags);
  }
  if (session.table()) {
    v1::Frontier scores;
    *scores.mutable_points() = response.scores();
    Print(JoinLines(FrontierLines(scores, 0, 0, session.terminal().color_stdout)));
    return kDone;
  }
  ListPrinter printer("scores", session.settings().format);
  for (const auto& score : response.scores()) printer.Add(ToJson(score));
  printer.Finish();
  return kDone;
}

int Tokenize(Session& session, const std::string& text) {
  v1::TokenizeRequest request;
  request.set_text(Unprotect(text));
  v1::TokenizeResponse response;
  const grpc::Status status = session.client().Call(&Client::Stub::Tokenize, request, &response);
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (session.table()) {
    std::vector<std::vector<std::string>> rows;
    for (const auto& token : response.tokens()) {
      rows.push_back({absl::StrCat(token.id()), Quote(token.text())});
    }
    Print(
        JoinLines(TableLines({{"id", true}, {"token"}}, rows, 0, session.terminal().color_stdout)));
    return kDone;
  }
  ListPrinter printer("tokens", session.settings().format);
  for (const auto& token : response.tokens()) printer.Add(ToJson(token));
  printer.Finish();
  return kDone;
}

int Info(Session& session) {
  v1::GetServerInfoResponse info;
  const grpc::Status status =
      session.client().Call(&Client::Stub::GetServerInfo, v1::GetServerInfoRequest(), &info);
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (!session.table()) {
    PrintValue(ToJson(info), session.settings().format);
    return kDone;
  }
  const v1::Model& model = info.model();
  const std::pair<const char*, std::string> rows[] = {
      {"server", absl::StrCat(session.settings().server, ", version ", info.version())},
      {"model", absl::StrCat(model.name(), " (", model.architecture(), ")")},
      {"fingerprint", model.fingerprint()},
      {"layers", absl::StrCat(model.layers(), " of ", model.neurons_per_layer(), " neurons")},
      {"hidden size", absl::StrCat(model.hidden_size())},
      {"vocabulary", absl::StrCat(model.vocabulary_size(), " rows, ", model.proposable_tokens(),
                                  " tokens that a search proposes")},
      {"context", absl::StrCat(model.context_length(), " tokens")},
      {"device", absl::StrCat(model.device(), ", ", model.dtype())},
  };
  std::string out;
  for (const auto& [name, value] : rows)
    absl::StrAppend(&out, PadRight(name, 13), Escape(value), "\n");
  Print(out);
  return kDone;
}

}  // namespace

void AddModel(Commands& commands) {
  const auto score = std::make_shared<ScoreOptions>();
  CLI::App* app =
      commands.Add("score", "Score prompts of your own: target and cross-entropy",
                   "Example: epo score --layer 8 --neuron 12 \"The capital of France is\"",
                   [score](Session& session) { return Score(session, *score); });
  score->app = app;
  AddObjectiveFlags(app, score->objective);
  score->ids =
      AddPromptOption(app, "--ids", "A prompt as token ids, as in 464,3139; may be repeated")
          ->option_text("IDS");
  score->text = AddPromptOption(app, "TEXT", "Prompts; \"--\" before one that begins with a dash");

  const auto text = std::make_shared<std::string>();
  commands
      .Add("tokenize", "Show a text's tokens", "Example: epo tokenize \"Hello, world\" -o json",
           [text](Session& session) { return Tokenize(session, *text); })
      ->add_option("TEXT", *text, "The text; \"--\" before one that begins with a dash")
      ->required()
      ->option_text(" ");
  commands.Add("info", "Show the server and the model that it serves",
               "Example: epo info --server gpu1:50051", Info);
}

}  // namespace epo::cli
