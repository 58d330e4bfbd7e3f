// The words that every layer of the core shares.
#ifndef EPO_CORE_BASE_TYPES_H_
#define EPO_CORE_BASE_TYPES_H_

#include <cstdint>
#include <vector>

namespace epo {

// An index into the model's embedding rows.
using TokenId = int32_t;

// A prompt: its token ids, t_0 .. t_{n-1}.
using Prompt = std::vector<TokenId>;

}  // namespace epo

#endif  // EPO_CORE_BASE_TYPES_H_
