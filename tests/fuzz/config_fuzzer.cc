// A checkpoint's config.json: what is taken describes a decoder that can be built.
#include <cmath>

#include "core/model/model_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using epo::Require;
  const epo::InputFile input({reinterpret_cast<const char*>(data), size});
  const auto config = epo::ParseModelConfig(input.path());
  if (!config.ok()) {
    epo::RequireGoodError(config.status(), input.path());
    return 0;
  }
  for (const int64_t each :
       {config->hidden_size, config->layers, config->heads, config->kv_heads, config->head_dim,
        config->intermediate_size, config->vocab_size, config->context_length}) {
    // They go over the wire as int32.
    Require(each > 0 && each <= INT32_MAX, "sizes are positive int32 numbers");
  }
  Require(config->heads % config->kv_heads == 0, "query heads share key heads evenly");
  Require(config->rotary_dim >= 2 && config->rotary_dim % 2 == 0 &&
              config->rotary_dim <= config->head_dim,
          "pairs of channels of a head are rotated");
  Require(std::isfinite(config->rope_theta) && config->rope_theta > 0, "rope_theta is positive");
  Require(std::isfinite(config->norm_epsilon) && config->norm_epsilon > 0, "epsilon is positive");
  return 0;
}
