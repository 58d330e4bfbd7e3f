// A CreateJobRequest off the wire, the way the server takes it: what is accepted can be run, stored
// and read back.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "core/model/model.h"
#include "core/search/search.h"
#include "server/job_request.h"
#include "server/status.h"
#include "tests/fuzz/fuzz.h"

namespace {

// A vector that objectives find under every name.
class AnyVector final : public epo::VectorSource {
 public:
  explicit AnyVector(int64_t width) : width_(width) {}
  absl::StatusOr<epo::VectorValues> Row(const std::string& name, int row) const override {
    if (name.empty()) return absl::NotFoundError("names none");
    if (row < 0) return absl::OutOfRangeError("is below 0");
    return std::make_shared<const std::vector<float>>(width_, static_cast<float>(row) + 1);
  }

 private:
  const int64_t width_;
};

bool Same(const epo::VectorValues& a, const epo::VectorValues& b) {
  return a == nullptr || b == nullptr ? a == b : *a == *b;
}

// A NaN, which no accepted objective holds, differs from itself.
bool Same(const epo::NeuronTerm& a, const epo::NeuronTerm& b) { return a == b; }
bool Same(const epo::DirectionTerm& a, const epo::DirectionTerm& b) {
  return a.layer == b.layer && a.point == b.point && Same(a.vector, b.vector) &&
         a.standardise == b.standardise;
}
bool Same(const epo::FeatureTerm& a, const epo::FeatureTerm& b) {
  return a.layer == b.layer && a.point == b.point && Same(a.encoder, b.encoder) &&
         a.bias == b.bias && Same(a.decoder_bias, b.decoder_bias) && a.activation == b.activation &&
         a.threshold == b.threshold;
}
bool Same(const epo::AttentionTerm& a, const epo::AttentionTerm& b) {
  return a.layer == b.layer && a.head == b.head && a.key == b.key;
}
bool Same(const epo::OutputTerm& a, const epo::OutputTerm& b) {
  return a.layer == b.layer && a.head == b.head && Same(a.vector, b.vector);
}
bool Same(const epo::LogitTerm& a, const epo::LogitTerm& b) { return a.token == b.token; }
bool Same(const epo::LogitDifferenceTerm& a, const epo::LogitDifferenceTerm& b) {
  return a.token == b.token && a.other == b.other;
}
bool Same(const epo::ContinuationTerm& a, const epo::ContinuationTerm& b) {
  return a.tokens == b.tokens;
}
bool Same(const epo::CosineTerm& a, const epo::CosineTerm& b) {
  return a.layer == b.layer && a.point == b.point && Same(a.vector, b.vector) && a.text == b.text;
}

bool Same(const epo::Term& a, const epo::Term& b) {
  const auto same_kind = [&](const auto& kind) {
    const auto* other = std::get_if<std::decay_t<decltype(kind)>>(&b.kind);
    return other != nullptr && Same(kind, *other);
  };
  return std::visit(same_kind, a.kind) && a.position == b.position && a.weight == b.weight &&
         a.scale == b.scale;
}

bool Same(const epo::Context& a, const epo::Context& b) {
  return a.prefix == b.prefix && a.suffix == b.suffix;
}

template <class T>
bool Same(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const T& x, const T& y) { return Same(x, y); });
}

bool Same(const epo::Objective& a, const epo::Objective& b) {
  return Same(a.terms, b.terms) && a.combine == b.combine && a.temperature == b.temperature &&
         a.minimize == b.minimize && Same(a.contexts, b.contexts) && a.across == b.across &&
         a.fluency_over_suffix == b.fluency_over_suffix;
}

const epo::Converter& TinyConverter() {
  static const epo::Model& model = [&]() -> const epo::Model& {
    auto loaded = epo::Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float32"});
    epo::Require(loaded.ok(), loaded.status().ToString());
    return *loaded->release();
  }();
  static const auto& vectors = *new AnyVector(model.config().hidden_size);
  static const auto& converter = *new epo::Converter(model, &vectors);
  return converter;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using epo::Converter, epo::Require;
  static const google::protobuf::LogSilencer
      silencer;  // else each text that is not UTF-8 is logged
  epo::v1::CreateJobRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return 0;
  const Converter& converter = TinyConverter();
  const auto spec = epo::CheckJobRequest(request, converter, {});
  if (!spec.ok()) {
    Require(spec.status().code() == absl::StatusCode::kInvalidArgument, spec.status().ToString());
    Require(epo::ToRpcStatus(spec.status()).ByteSizeLong() < 8192, "an error fits in trailers");
    return 0;
  }
  const epo::v1::JobSpec stored = Converter::EffectiveSpec(request.spec(), *spec);
  epo::FieldViolations violations;
  const epo::SearchSpec again = converter.ParseSpec(stored, "spec", violations);
  Require(violations.empty(), "what was accepted is accepted after a restart");
  Require(
      Same(again.objective, spec->objective) &&
          Converter::EffectiveSpec(stored, again).SerializeAsString() == stored.SerializeAsString(),
      "a restart finds the same job");
  const auto allowed = epo::MakeAllowedTokens(converter.model(), spec->options);
  const auto rules =
      epo::PromptRules::Create(spec->options.constraints, converter.model().tokenizer());
  auto made = epo::Search::Create(spec->options, allowed, rules);
  if (!made.ok()) {
    Require(made.status().code() == absl::StatusCode::kFailedPrecondition, "FAILED_PRECONDITION");
    return 0;
  }
  const auto search = *std::move(made);
  for (const epo::Mutation& mutation : search->Ask()) {
    Require(mutation.position < spec->options.tokens && mutation.rank < spec->options.top_k,
            "a mutation is within its ranges");
  }
  const std::string saved = search->Save();
  Require(epo::Search::Restore(again.options, allowed, saved, rules).ok(),
          "a restart restores the search");
  return 0;
}
