// Answers one JSON request on stdin with JSON on stdout, so that Python tests can compare the core
// with their own computations.
//
// {"model": DIR, "dtype": "float64", "op": ..., ...} where op is
//   forward: ids, layer                     -> logits [n][vocab], neurons [n][intermediate]
//   prepare: prompts, layer, neuron, penalty -> prompts: [{target, cross_entropy, next_token,
//   gradient [n][vocab]}] score:   layer, neuron, parents, candidates [[parent, first_changed,
//   tokens]] -> scores [[target, cross_entropy]] search:  layer, neuron, options         ->
//   iterations [{ids, target, cross_entropy, keep}], frontier

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <numeric>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/substitutes.h"
#include "core/evaluate/tensors.h"
#include "core/model/decoder.h"
#include "core/model/model.h"
#include "core/search/run.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using Json = nlohmann::json;

Json ToJson(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
  const double* values = host.const_data_ptr<double>();
  if (host.dim() == 1) return std::vector<double>(values, values + host.size(0));
  Json rows = Json::array();
  for (int64_t i = 0; i < host.size(0); ++i) {
    rows.push_back(std::vector<double>(values + i * host.size(1), values + (i + 1) * host.size(1)));
  }
  return rows;
}

// Attention of one prompt, written out: the plain forward shares nothing with the evaluator's
// packing.
class PlainAttention final : public RowAttention {
 public:
  explicit PlainAttention(const ModelConfig& config) : config_(config) {}
  at::Tensor Attend(int64_t /*layer*/, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    const int64_t rows = query.size(0);
    const int64_t group = config_.heads / config_.kv_heads;
    const at::Tensor q = query.transpose(0, 1);
    const at::Tensor k = key.repeat_interleave(group, 1).transpose(0, 1);
    const at::Tensor v = value.repeat_interleave(group, 1).transpose(0, 1);
    const at::Tensor future = at::ones({rows, rows}, at::kBool).triu(1);
    const at::Tensor scores =
        (at::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(config_.head_dim)))
            .masked_fill(future, -std::numeric_limits<double>::infinity());
    return at::matmul(at::softmax(scores, -1), v).transpose(0, 1).reshape({rows, -1});
  }

 private:
  const ModelConfig& config_;
};

Json Forward(const Model& model, const Json& request) {
  const at::AutoGradMode no_grad(false);
  const auto ids = request.at("ids").get<std::vector<int64_t>>();
  const auto layer = request.at("layer").get<int64_t>();
  const Decoder decoder(model);
  std::vector<int64_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const Rotary rotary = decoder.RotaryAt(ToDevice(positions, at::kCPU));
  PlainAttention attention(model.config());
  at::Tensor residual = decoder.Embed(ToDevice(ids, at::kCPU));
  Json result;
  for (int64_t i = 0; i < model.config().layers; ++i) {
    at::Tensor neurons;
    residual = decoder.Layer(i, residual, rotary, attention, &neurons);
    if (i == layer) result["neurons"] = ToJson(neurons);
  }
  result["logits"] = ToJson(decoder.Logits(decoder.FinalNorm(residual)));
  return result;
}

Objective ObjectiveOf(const Json& request) {
  return {request.at("layer").get<int>(), request.at("neuron").get<int>()};
}

absl::StatusOr<Json> PreparePrompts(const Model& model, Evaluator& evaluator, const Json& request) {
  std::vector<PrepareRequest> requests;
  for (const Json& prompt : request.at("prompts")) {
    requests.push_back({prompt.get<Prompt>(), ObjectiveOf(request), true});
  }
  auto prepared = evaluator.Prepare(requests);
  if (!prepared.ok()) return prepared.status();
  Json results = Json::array();
  for (const auto& one : *prepared) {
    const auto& prompt = static_cast<const PreparedPrompt&>(*one);
    Json gradient = Json::array();
    for (size_t i = 0; i < prompt.ids.size(); ++i) {
      gradient.push_back(ToJson(
          TokenGradient(model, prompt, static_cast<int>(i), request.at("penalty").get<float>())));
    }
    results.push_back({{"target", prompt.score().target},
                       {"cross_entropy", prompt.score().cross_entropy},
                       {"next_token", prompt.next_token()},
                       {"gradient", std::move(gradient)}});
  }
  return Json{{"prompts", std::move(results)}};
}

absl::StatusOr<Json> ScoreChildren(Evaluator& evaluator, const Json& request) {
  std::vector<PrepareRequest> requests;
  for (const Json& prompt : request.at("parents")) {
    requests.push_back({prompt.get<Prompt>(), ObjectiveOf(request), true});
  }
  auto parents = evaluator.Prepare(requests);
  if (!parents.ok()) return parents.status();
  std::vector<Candidate> candidates;
  for (const Json& candidate : request.at("candidates")) {
    candidates.push_back({(*parents).at(candidate.at(0).get<size_t>()).get(),
                          candidate.at(1).get<int>(), candidate.at(2).get<Prompt>()});
  }
  auto scores = evaluator.ScoreCandidates(candidates);
  if (!scores.ok()) return scores.status();
  Json results = Json::array();
  for (const Score& score : *scores) results.push_back({score.target, score.cross_entropy});
  return Json{{"scores", std::move(results)}};
}

absl::StatusOr<Json> RunSearch(const Model& model, Evaluator& evaluator, const Json& request) {
  SearchOptions options;
  const Json& given = request.at("options");
  options.tokens = given.value("tokens", options.tokens);
  options.population = given.value("population", options.population);
  options.children_per_parent = given.value("children_per_parent", options.children_per_parent);
  options.top_k = given.value("top_k", options.top_k);
  options.iterations = given.value("iterations", options.iterations);
  options.restart_period = given.value("restart_period", options.restart_period);
  options.seed = given.value("seed", options.seed);
  const auto run = Run::Create(model, ObjectiveOf(request), options);
  Json iterations = Json::array();
  Json frontier;
  while (!run->done()) {
    Run* const runs[] = {run.get()};
    auto reports = AdvanceRound(evaluator, runs);
    if (!reports.ok()) return reports.status();
    const StepReport& report = reports->front();
    Json target = Json::array(), cross_entropy = Json::array();
    for (const Score& score : report.iteration.scores) {
      target.push_back(score.target);
      cross_entropy.push_back(score.cross_entropy);
    }
    iterations.push_back({{"ids", report.iteration.ids},
                          {"target", std::move(target)},
                          {"cross_entropy", std::move(cross_entropy)},
                          {"keep", report.iteration.keep}});
    frontier = Json::array();
    for (const ScoredPrompt& point : report.frontier) {
      frontier.push_back({{"ids", point.ids},
                          {"target", point.score.target},
                          {"cross_entropy", point.score.cross_entropy}});
    }
  }
  return Json{{"iterations", std::move(iterations)}, {"frontier", std::move(frontier)}};
}

absl::StatusOr<Json> Answer(const Json& request) {
  auto model = Model::Load(request.at("model").get<std::string>(),
                           {"cpu", request.value("dtype", "float64")});
  if (!model.ok()) return model.status();
  const auto evaluator = Evaluator::Create(**model, {.max_rows = request.value("max_rows", 4096)});
  const auto op = request.at("op").get<std::string>();
  if (op == "forward") return Forward(**model, request);
  if (op == "prepare") return PreparePrompts(**model, *evaluator, request);
  if (op == "score") return ScoreChildren(*evaluator, request);
  if (op == "search") return RunSearch(**model, *evaluator, request);
  return absl::InvalidArgumentError("unknown op");
}

}  // namespace
}  // namespace epo

int main() {
  const nlohmann::json request = nlohmann::json::parse(std::cin);
  const absl::StatusOr<nlohmann::json> answer = epo::Answer(request);
  if (!answer.ok()) {
    std::cerr << answer.status().message() << "\n";
    return 1;
  }
  std::cout << *answer;
  return 0;
}
