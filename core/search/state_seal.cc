#include "core/search/state_seal.h"

#include <cstddef>
#include <cstdint>

#include "core/search/search.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

constexpr size_t kDigestBytes = sizeof(uint64_t);

nlohmann::json ToJson(const Constraints& c) {
  return {c.ascii_only,   c.decodable_only, c.banned_ids,       c.banned_token_regex,
          c.banned_texts, c.retokenizable,  c.frozen_positions, c.max_cross_entropy.value_or(0)};
}

std::string ToText(const SearchOptions& o) {
  nlohmann::json json{o.tokens,
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
                      o.allow_special_tokens};
  if (o.constraints != Constraints()) json.push_back(ToJson(o.constraints));
  return json.dump();
}

// FNV-1a, continued from `hash`.
uint64_t Hash(uint64_t hash, std::string_view bytes) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

StateSeal::StateSeal(const SearchOptions& options)
    : options_(Hash(0xcbf29ce484222325, ToText(options))) {}

// As bytes.
std::string StateSeal::Digest(std::string_view state) const {
  const uint64_t hash = Hash(options_, state);
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
