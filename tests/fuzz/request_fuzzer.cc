// A CreateJobRequest off the wire, the way the server takes it: what is accepted can be run, stored
// and read back.
#include <google/protobuf/stubs/logging.h>

#include "core/model/model.h"
#include "core/search/search.h"
#include "server/job_request.h"
#include "server/status.h"
#include "tests/fuzz/fuzz.h"

namespace {

const epo::Converter& TinyConverter() {
  static const epo::Model& model = [&]() -> const epo::Model& {
    auto loaded = epo::Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float32"});
    epo::Require(loaded.ok(), loaded.status().ToString());
    return *loaded->release();
  }();
  static const auto& converter = *new epo::Converter(model);
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
  const auto spec = epo::CheckJobRequest(request, converter, {}, [] { return false; });
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
      again.objective == spec->objective &&
          Converter::EffectiveSpec(stored, again).SerializeAsString() == stored.SerializeAsString(),
      "a restart finds the same job");
  const auto allowed =
      epo::MakeAllowedTokens(converter.model(), spec->options.allow_special_tokens);
  const auto search = epo::Search::Create(spec->options, allowed);
  for (const epo::Mutation& mutation : search->Ask()) {
    Require(mutation.position < spec->options.tokens && mutation.rank < spec->options.top_k,
            "a mutation is within its ranges");
  }
  const std::string saved = search->Save();
  Require(epo::Search::Restore(again.options, allowed, saved).ok(),
          "a restart restores the search");
  return 0;
}
