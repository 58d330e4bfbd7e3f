// Answers JSON requests over one loaded model, so that Python tests can compare the core with their
// own computations. Reads one object on stdin, writes one on stdout.
//
// {"model": DIR, "device": "cpu", "dtype": "float64", "max_rows": 4096, "tensors": FILE,
//  "requests": [...]}
//   -> {"answers": [...]}, each a request's answer or {"error": message}
// where a tensor, written below as a name and its [shape], is {"offset": first float64 in FILE,
// "shape": [...]}. A request's "op" is one of
//   forward: ids, layer
//     -> logits [n][vocab], neurons [n][intermediate]
//   prepare: prompts, OBJECTIVE, penalty, one_hot (whether to give that gradient)
//     -> prompts [{target, cross_entropy (as scored: float32), exact_target, terms, surprisal (a
//     list a
//        branch, of the counted tokens; of a single branch one list), next_token,
//        target_gradient [n][hidden], cross_entropy_gradient [n][hidden],
//        gradient [n][vocab] (one-hot, of -f + penalty * x, float32)}]
//   score: objectives [OBJECTIVE or [layer, neuron]], parents [[objective, ids]],
//     candidates [[parent, first_changed, tokens]]
//     -> scores [[target, cross_entropy]]
//   search: OBJECTIVE, options (of SearchOptions, by name)
//     -> penalties, iterations [{ids, target, cross_entropy, keep, restart_penalty}], frontier
// An OBJECTIVE is "objective" as in objective_json.h, or "layer" and "neuron".
// Exits with 1 and the message on stderr when the model cannot be loaded.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/evaluate/evaluator.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/substitutes.h"
#include "core/evaluate/tensors.h"
#include "core/model/allowed_tokens.h"
#include "core/model/decoder.h"
#include "core/model/model.h"
#include "core/search/run.h"
#include "nlohmann/json.hpp"
#include "tests/tools/objective_json.h"

namespace epo {
namespace {

using Json = nlohmann::json;

// Tensors go to a file, as float64 one after another; JSON says where.
class TensorFile {
 public:
  explicit TensorFile(const std::string& path) : stream_(path, std::ios::binary) {}

  Json Add(const at::Tensor& tensor) {
    const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
    Json place = {{"offset", offset_}, {"shape", host.sizes().vec()}};
    stream_.write(static_cast<const char*>(host.const_data_ptr()),
                  static_cast<std::streamsize>(host.nbytes()));
    offset_ += host.numel();
    return place;
  }

 private:
  std::ofstream stream_;
  int64_t offset_ = 0;
};

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
    const at::Tensor future = at::ones({rows, rows}, query.options().dtype(at::kBool)).triu(1);
    const at::Tensor scores =
        (at::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(config_.head_dim)))
            .masked_fill(future, -std::numeric_limits<double>::infinity());
    return at::matmul(at::softmax(scores, -1), v).transpose(0, 1).reshape({rows, -1});
  }

 private:
  const ModelConfig& config_;
};

Json Forward(const Model& model, const Json& request, TensorFile& tensors) {
  const at::AutoGradMode no_grad(false);
  const auto ids = request.at("ids").get<std::vector<int64_t>>();
  const auto layer = request.at("layer").get<int64_t>();
  const c10::Device device = model.weights().device();
  const Decoder decoder(model);
  std::vector<int64_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const Rotary rotary = decoder.RotaryAt(ToDevice(positions, device));
  PlainAttention attention(model.config());
  at::Tensor residual = decoder.Embed(ToDevice(ids, device));
  Json result;
  LayerTensors of_layer;
  for (int64_t i = 0; i < model.config().layers; ++i) {
    residual = decoder.Layer(i, residual, rotary, attention, of_layer);
    if (i == layer) result["neurons"] = tensors.Add(of_layer.neurons);
  }
  result["logits"] = tensors.Add(decoder.Logits(decoder.FinalNorm(residual)));
  return result;
}

Objective ObjectiveOf(const Json& request) {
  if (request.is_array())
    return NeuronObjective(request.at(0).get<int>(), request.at(1).get<int>());
  if (request.contains("terms")) return ObjectiveFromJson(request);
  if (request.contains("objective")) return ObjectiveFromJson(request.at("objective"));
  return NeuronObjective(request.at("layer").get<int>(), request.at("neuron").get<int>());
}

absl::StatusOr<Json> PreparePrompts(const Model& model, Evaluator& evaluator, const Json& request,
                                    TensorFile& tensors) {
  const auto target = Target::Create(model, ObjectiveOf(request));
  if (!target.ok()) return target.status();
  std::vector<PrepareRequest> requests;
  for (const Json& prompt : request.at("prompts")) {
    requests.push_back({prompt.get<Prompt>(), *target, true});
  }
  auto prepared = evaluator.Prepare(requests);
  if (!prepared.ok()) return prepared.status();
  Json results = Json::array();
  for (const auto& one : *prepared) {
    const auto& prompt = static_cast<const PreparedPrompt&>(*one);
    Json surprisal = Json::array();
    for (const PreparedBranch& branch : prompt.branches) surprisal.push_back(branch.surprisal);
    Json result = {{"target", prompt.score().target},
                   {"cross_entropy", prompt.score().cross_entropy},
                   {"exact_target", prompt.value},
                   {"terms", prompt.terms},
                   {"surprisal", surprisal.size() == 1 ? surprisal[0] : surprisal},
                   {"next_token", prompt.next_token()},
                   {"target_gradient", tensors.Add(prompt.target_gradient)},
                   {"cross_entropy_gradient", tensors.Add(prompt.cross_entropy_gradient)}};
    if (request.value("one_hot", true)) {
      const auto penalty = request.at("penalty").get<float>();
      std::vector<at::Tensor> rows;
      for (size_t i = 0; i < prompt.ids.size(); ++i) {
        rows.push_back(TokenGradient(model, prompt, static_cast<int>(i), penalty));
      }
      result["gradient"] = tensors.Add(at::stack(rows));
    }
    results.push_back(std::move(result));
  }
  return Json{{"prompts", std::move(results)}};
}

absl::StatusOr<Json> ScoreChildren(const Model& model, Evaluator& evaluator, const Json& request) {
  std::vector<std::shared_ptr<const Target>> targets;
  for (const Json& objective : request.at("objectives")) {
    auto target = Target::Create(model, ObjectiveOf(objective));
    if (!target.ok()) return target.status();
    targets.push_back(*std::move(target));
  }
  std::vector<PrepareRequest> requests;
  for (const Json& parent : request.at("parents")) {
    requests.push_back({parent.at(1).get<Prompt>(), targets.at(parent.at(0).get<size_t>()), true});
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

SearchOptions OptionsOf(const Json& given) {
  SearchOptions options;
  const auto read = [&](const char* name, auto& value) {
    if (given.contains(name)) given.at(name).get_to(value);
  };
  read("tokens", options.tokens);
  read("population", options.population);
  read("children_per_parent", options.children_per_parent);
  read("top_k", options.top_k);
  read("penalty_min", options.penalty_min);
  read("penalty_max", options.penalty_max);
  read("iterations", options.iterations);
  read("restart_period", options.restart_period);
  read("restart_penalty_low", options.restart_penalty_low);
  read("restart_penalty_high", options.restart_penalty_high);
  read("seed", options.seed);
  read("initial_prompts", options.initial_prompts);
  read("allow_special_tokens", options.allow_special_tokens);
  return options;
}

absl::StatusOr<Json> RunSearch(const Model& model, Evaluator& evaluator, const Json& request) {
  const SearchOptions options = OptionsOf(request.at("options"));
  const FieldViolations bad = ValidateSearchOptions(
      options, model.config(), *MakeAllowedTokens(model, options.allow_special_tokens));
  if (!bad.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(bad[0].field, " ", bad[0].description));
  }
  const auto created = Run::Create(model, ObjectiveOf(request), options);
  if (!created.ok()) return created.status();
  const std::unique_ptr<Run>& run = *created;
  Json iterations = Json::array();
  Json frontier, penalties;
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
    penalties = Json::array();
    for (const SlotReport& slot : report.slots) penalties.push_back(slot.penalty);
    const auto& restart_penalty = report.iteration.restart_penalty;
    iterations.push_back({{"ids", report.iteration.ids},
                          {"target", std::move(target)},
                          {"cross_entropy", std::move(cross_entropy)},
                          {"keep", report.iteration.keep},
                          {"restart_penalty", restart_penalty ? Json(*restart_penalty) : Json()}});
    frontier = Json::array();
    for (const ScoredPrompt& point : report.frontier) {
      frontier.push_back({{"ids", point.ids},
                          {"target", point.score.target},
                          {"cross_entropy", point.score.cross_entropy}});
    }
  }
  return Json{{"penalties", std::move(penalties)},
              {"iterations", std::move(iterations)},
              {"frontier", std::move(frontier)}};
}

absl::StatusOr<Json> Answer(const Model& model, Evaluator& evaluator, const Json& request,
                            TensorFile& tensors) {
  const auto op = request.at("op").get<std::string>();
  if (op == "forward") return Forward(model, request, tensors);
  if (op == "prepare") return PreparePrompts(model, evaluator, request, tensors);
  if (op == "score") return ScoreChildren(model, evaluator, request);
  if (op == "search") return RunSearch(model, evaluator, request);
  return absl::InvalidArgumentError("unknown op " + op);
}

absl::StatusOr<Json> AnswerAll(const Json& call) {
  auto model = Model::Load(call.at("model").get<std::string>(),
                           {call.value("device", "cpu"), call.value("dtype", "float64")});
  if (!model.ok()) return model.status();
  const auto evaluator = Evaluator::Create(**model, {.max_rows = call.value("max_rows", 4096)});
  TensorFile tensors(call.at("tensors").get<std::string>());
  Json answers = Json::array();
  for (const Json& request : call.at("requests")) {
    const absl::StatusOr<Json> answer = Answer(**model, *evaluator, request, tensors);
    answers.push_back(answer.ok() ? *answer
                                  : Json{{"error", std::string(answer.status().message())}});
  }
  return Json{{"answers", std::move(answers)}};
}

}  // namespace
}  // namespace epo

int main() {
  const nlohmann::json call = nlohmann::json::parse(std::cin);
  const absl::StatusOr<nlohmann::json> answers = epo::AnswerAll(call);
  if (!answers.ok()) {
    std::cerr << answers.status().message() << "\n";
    return 1;
  }
  std::cout << *answers;
  return 0;
}
