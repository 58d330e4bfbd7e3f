#include "client/cli/report_data.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "client/cli/errors.h"
#include "client/cli/facts.h"
#include "client/cli/json.h"
#include "client/cli/objective_text.h"
#include "client/cli/sweep_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/report/assets.h"

namespace epo::cli {
namespace {

using Json = nlohmann::ordered_json;

// Of each token; the rest of the substitutes would make the page several times as large.
constexpr int kBestSubstitutes = 3;
constexpr size_t kMostThresholds = 5;

Json PointJson(const v1::ScoredPrompt& prompt) {
  Json point = ToJson(prompt);
  point.erase("ids");
  return point;
}

Json PointsJson(const v1::Frontier& frontier) {
  Json points = Json::array();
  for (const auto& point : frontier.points()) points.push_back(PointJson(point));
  return points;
}

// [[cross-entropy, target], ...] of those that have both.
Json PlaneJson(const v1::Frontier& frontier) {
  Json points = Json::array();
  for (const auto& point : frontier.points()) {
    if (!point.has_cross_entropy() || !std::isfinite(point.cross_entropy()) ||
        !std::isfinite(point.target())) {
      continue;
    }
    const Json both = ToJson(point);
    points.push_back({both["cross_entropy"], both["target"]});
  }
  return points;
}

Json SubstituteJson(const v1::Substitute& substitute) {
  const Json json = ToJson(substitute);
  return {json["text"], json["target"], json["cross_entropy"]};
}

Json TokenJson(const v1::TokenAttribution& token) {
  std::vector<v1::Substitute> ranked(token.substitutes().begin(), token.substitutes().end());
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.target() > b.target(); });
  Json top = Json::array();
  for (size_t i = 0; i < ranked.size() && i < kBestSubstitutes; ++i) {
    top.push_back(SubstituteJson(ranked[i]));
  }
  v1::TokenAttribution plain = token;
  plain.clear_substitutes();
  const Json drops = ToJson(plain);
  return {{"text", token.text()},
          {"best", drops["drop_to_best"]},
          {"worst", drops["drop_to_worst"]},
          {"top", std::move(top)},
          {"bottom", ranked.empty() ? Json(nullptr) : SubstituteJson(ranked.back())}};
}

Json FactsJson(const Facts& facts) {
  Json rows = Json::array();
  for (const auto& [name, value] : facts) rows.push_back({name, value});
  return rows;
}

// The model as far as the server that is asked now serves it.
Facts ModelFacts(const v1::Model& model, const std::string& fingerprint) {
  if (model.fingerprint() != fingerprint) {
    return {{"model", absl::StrCat("fingerprint ", Escape(fingerprint),
                                   "; the server now serves another, ", Escape(model.name()))}};
  }
  return {{"model", absl::StrCat(Escape(model.name()), " (", Escape(model.architecture()), ")")},
          {"fingerprint", Escape(fingerprint)},
          {"layers", absl::StrCat(model.layers(), " of ", model.neurons_per_layer(), " neurons")},
          {"hidden size", absl::StrCat(model.hidden_size())},
          {"vocabulary", absl::StrCat(model.vocabulary_size(), " rows")},
          {"device", absl::StrCat(Escape(model.device()), ", ", Escape(model.dtype()))}};
}

Facts With(Facts facts, const Facts& more) {
  facts.insert(facts.end(), more.begin(), more.end());
  return facts;
}

Json Base(const char* kind, const std::string& id, const std::string& title,
          const v1::GetServerInfoResponse& server, const std::string& made) {
  return {{"kind", kind},
          {"id", id},
          {"title", title},
          {"made", made},
          {"version", server.version()},
          {"notices", Json::array()}};
}

// What makes a job's report less than whole. `who` is the job at a sentence's beginning.
void AddNotices(const v1::Job& job, const v1::Frontier& frontier, const std::string& who,
                Json& notices) {
  const std::string steps =
      absl::StrCat(job.completed_iterations(), " of ", job.spec().iterations(), " iterations");
  if (ExitCodeOf(job.state()) == kJobPending) {
    notices.push_back(
        {"Partial report.", absl::StrCat(who, " was ", v1::Job::State_Name(job.state()), " after ",
                                         steps, " when this was made.")});
  } else if (job.state() != v1::Job::SUCCEEDED) {
    notices.push_back({"The search did not run to its end.",
                       absl::StrCat(who, " is ", v1::Job::State_Name(job.state()), " after ", steps,
                                    job.has_error() ? ": " + job.error().message() : "", ".")});
  }
  if (frontier.points().empty()) {
    notices.push_back({"The frontier is empty.",
                       absl::StrCat(who, " scored nothing below its ceiling on cross-entropy.")});
  }
}

// Jobs by what tells them apart: the id, which comes first since a figure cuts a long name's end,
// the seed, the objective where they differ in it.
std::string ComparedName(const v1::Job& job, bool objectives) {
  const std::string part = PartText(job);
  return absl::StrCat(job.id(), part.empty() ? "" : absl::StrCat(" (", part, ")"), ", seed ",
                      job.spec().seed(),
                      objectives ? ", " + ObjectiveText(job.spec().objective()) : "");
}

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

}  // namespace

std::vector<int> TellingIterations(int completed) {
  std::set<int> iterations;
  if (completed < 1) return {};
  for (const double power : {0.0, 0.4, 0.65, 0.85, 1.0}) {
    iterations.insert(static_cast<int>(std::lround(std::pow(completed, power))));
  }
  return {iterations.begin(), iterations.end()};
}

std::vector<double> ChooseThresholds(const v1::Frontier& frontier) {
  std::vector<double> values;
  for (const auto& point : frontier.points()) {
    if (point.has_cross_entropy() && std::isfinite(point.cross_entropy())) {
      values.push_back(point.cross_entropy());
    }
  }
  if (values.empty()) return {};
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double magnitude = std::pow(10, std::floor(std::log10(std::max(*high - *low, 1e-6) / 4)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0, 10.0, 20.0}) {
    const double step = factor * magnitude;
    std::vector<double> thresholds;
    for (double k = std::floor(*low / step) + 1; k * step <= *high; ++k) {
      thresholds.push_back(std::round(k * step * 1e6) / 1e6);
    }
    if (thresholds.empty()) break;
    if (thresholds.size() <= kMostThresholds) return thresholds;
  }
  return {std::ceil(*high * 100) / 100};
}

absl::StatusOr<std::vector<double>> ParseThresholds(std::string_view text) {
  std::set<double> thresholds;
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(text.data(), text.size()), ',')) {
    double value = 0;
    if (!absl::SimpleAtod(part, &value) || !std::isfinite(value) || value <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part, "' is no cross-entropy above 0; give numbers as in 4,6,8"));
    }
    thresholds.insert(value);
  }
  if (thresholds.size() > kMostThresholds) {
    return absl::InvalidArgumentError(
        absl::StrCat("at most ", kMostThresholds, " thresholds, not ", thresholds.size()));
  }
  return std::vector<double>(thresholds.begin(), thresholds.end());
}

BestUnder::BestUnder(std::vector<double> thresholds) {
  for (const double threshold : thresholds) curves_.push_back({threshold, {}});
}

void BestUnder::Add(const v1::Iteration& iteration) {
  done_ = iteration.index() + 1;
  const int size = std::min(iteration.target_size(), iteration.cross_entropy_size());
  for (Curve& curve : curves_) {
    std::optional<float> best;
    for (int i = 0; i < size; ++i) {
      // NaN is under no threshold and above no target.
      if (!(iteration.cross_entropy(i) <= curve.threshold)) continue;
      if (best ? iteration.target(i) > *best : std::isfinite(iteration.target(i))) {
        best = iteration.target(i);
      }
    }
    if (best && (curve.points.empty() || *best > curve.points.back().second)) {
      curve.points.emplace_back(done_, *best);
    }
  }
}

Json BestUnder::Json() const {
  nlohmann::ordered_json curves = nlohmann::ordered_json::array();
  for (const Curve& curve : curves_) {
    nlohmann::ordered_json points = nlohmann::ordered_json::array();
    for (const auto& [done, target] : curve.points) points.push_back({done, target});
    if (!curve.points.empty() && curve.points.back().first < done_) {
      points.push_back({done_, curve.points.back().second});
    }
    curves.push_back({{"limit", curve.threshold}, {"points", std::move(points)}});
  }
  return curves;
}

std::string PartText(const v1::Job& job) {
  if (job.completed_iterations() >= job.spec().iterations()) return "";
  return absl::StrCat(job.completed_iterations(), " of ", job.spec().iterations(), " iterations");
}

Json JobReportJson(const JobReport& report, const std::string& made) {
  const v1::Job& job = report.job;
  Json data = Base("job", job.id(), ObjectiveText(job.spec().objective()), report.server, made);
  AddNotices(job, report.frontier, "The job", data["notices"]);
  const std::string part = PartText(job);
  data["subtitle"] = absl::StrCat(job.id(), part.empty() ? "" : absl::StrCat(" (", part, ")"));
  data["iterations"] = job.spec().iterations();
  data["completed"] = job.completed_iterations();
  data["facts"] =
      FactsJson(With(JobFacts(job), ModelFacts(report.server.model(), job.model_fingerprint())));
  data["frontier"] = PointsJson(report.frontier);
  data["pareto"] = PlaneJson(report.pareto);
  data["evolution"] = Json::array();
  for (const auto& [iterations, frontier] : report.evolution) {
    data["evolution"].push_back({{"iterations", iterations}, {"points", PlaneJson(frontier)}});
  }
  data["thresholds"] = report.best.Json();
  data["restarts"] = report.restarts;
  data["attribution"] = nullptr;
  data["attribution_note"] = report.attribution_note;
  if (report.attributions) {
    data["attribution"] = Json::array();
    for (const Attribution& attribution : *report.attributions) {
      Json tokens = Json::array();
      for (const auto& token : attribution) tokens.push_back(TokenJson(token));
      data["attribution"].push_back(attribution.empty() ? Json(nullptr)
                                                        : Json({{"tokens", std::move(tokens)}}));
    }
  }
  return data;
}

Json CompareReportJson(const std::vector<ComparedJob>& jobs,
                       const v1::GetServerInfoResponse& server, const std::string& made) {
  std::set<std::string> objectives;
  std::set<std::string> models;
  for (const auto& [job, frontier] : jobs) {
    objectives.insert(job.spec().objective().SerializeAsString());
    models.insert(job.model_fingerprint());
  }
  Json data = Base("compare", "",
                   objectives.size() == 1 ? ObjectiveText(jobs[0].job.spec().objective())
                                          : absl::StrCat(objectives.size(), " objectives"),
                   server, made);
  if (objectives.size() > 1) {
    data["notices"].push_back(
        {"Different objectives.", "Their targets are different quantities; compare with care."});
  }
  if (models.size() > 1) {
    data["notices"].push_back(
        {"Different models.", "Neither targets nor cross-entropies of one are those of another."});
  }
  data["jobs"] = Json::array();
  for (const auto& [job, frontier] : jobs) {
    AddNotices(job, frontier, absl::StrCat("Job ", job.id()), data["notices"]);
    data["jobs"].push_back(
        {{"id", job.id()},
         {"name", ComparedName(job, objectives.size() > 1)},
         {"facts",
          FactsJson(With(JobFacts(job), ModelFacts(server.model(), job.model_fingerprint())))},
         {"frontier", PointsJson(frontier)}});
  }
  return data;
}

Json SweepReportJson(const v1::Sweep& sweep, const std::vector<v1::ObjectiveFrontier>& objectives,
                     const std::map<std::string, std::string>& links,
                     const v1::GetServerInfoResponse& server, const std::string& made) {
  Json data = Base("sweep", sweep.id(), SweepSizeText(sweep), server, made);
  if (EndedJobs(sweep) < AllJobs(sweep)) {
    data["notices"].push_back(
        {"Partial report.", absl::StrCat(EndedJobs(sweep), " of ", AllJobs(sweep),
                                         " jobs had ended when this was made.")});
  }
  data["key"] = FactsJson({{"objectives", absl::StrCat(sweep.objective_count())},
                           {"seeds each", absl::StrCat(sweep.seed_count())},
                           {"jobs ended", absl::StrCat(EndedJobs(sweep))},
                           {"iterations", absl::StrCat(sweep.completed_iterations())}});
  data["seeds"] = sweep.seed_count();
  data["facts"] =
      FactsJson(With(SweepFacts(sweep), ModelFacts(server.model(), sweep.model_fingerprint())));
  data["links"] = Json(links);
  data["objectives"] = Json::array();
  for (const auto& objective : objectives) {
    Json points = Json::array();
    for (const auto& point : objective.points()) {
      Json json = PointJson(point.prompt());
      json["job"] = point.job();
      // As a text: it may be larger than what a number of JavaScript holds.
      json["seed"] = absl::StrCat(point.seed());
      points.push_back(std::move(json));
    }
    data["objectives"].push_back({{"index", objective.objective_index()},
                                  {"name", ObjectiveText(objective.objective())},
                                  {"ended", objective.ended_jobs()},
                                  {"points", std::move(points)}});
  }
  return data;
}

std::string EmbeddedJson(const Json& data) {
  return absl::StrReplaceAll(
      data.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace),
      {{"<", "\\u003c"}, {"\u2028", "\\u2028"}, {"\u2029", "\\u2029"}});
}

std::string ReportPage(const Json& data) {
  const std::string title = data["title"].get<std::string>();
  const std::string id = data["id"].get<std::string>();
  return absl::StrReplaceAll(
      report::Asset("page.html"),
      {{"@VERSION@", EscapeHtml(Escape(data["version"].get<std::string>()))},
       {"@TITLE@", EscapeHtml(Escape(absl::StrCat(title, id.empty() ? "" : " – ", id)))},
       {"@STYLE@", report::Asset("page.css")},
       {"@DATA@", EmbeddedJson(data)},
       {"@SCRIPTS@",
        absl::StrCat(report::Asset("vega.js"), "</script>\n<script>\n", report::Asset("text.js"),
                     report::Asset("figures.js"), report::Asset("page.js"))}});
}

}  // namespace epo::cli
