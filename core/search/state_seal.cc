#include "core/search/state_seal.h"

#include <cstddef>
#include <cstdint>

#include "core/search/search.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

constexpr size_t kDigestBytes = sizeof(uint64_t);

std::string ToText(const SearchOptions& o) {
  return nlohmann::json{o.tokens,
                        o.population,
                        o.children_per_parent,
                        o.top_k,
                        o.penalty_min,
                        o.penalty_max,
                        o.iterations,
                        o.restart_period,
                        o.restart_penalty_low,
                        o.restart_penalty_high,
                        o.seed,
                        o.initial_prompts,
                        o.allow_special_tokens}
      .dump();
}

}  // namespace

StateSeal::StateSeal(const SearchOptions& options) : options_(ToText(options)) {}

// FNV-1a, as bytes.
std::string StateSeal::Digest(std::string_view state) const {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::string_view part : {std::string_view(options_), state}) {
    for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  std::string bytes;
  for (size_t i = 0; i < kDigestBytes; ++i) bytes += static_cast<char>(hash >> (8 * i));
  return bytes;
}

std::string StateSeal::Seal(std::string_view state) const { return Digest(state).append(state); }

std::optional<std::string_view> StateSeal::Open(std::string_view blob) const {
  if (blob.size() < kDigestBytes) return std::nullopt;
  const std::string_view state = blob.substr(kDigestBytes);
  if (blob.substr(0, kDigestBytes) != Digest(state)) return std::nullopt;
  return state;
}

}  // namespace epo
