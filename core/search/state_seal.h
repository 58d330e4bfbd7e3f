// The digest that a saved search opens with.
#ifndef EPO_CORE_SEARCH_STATE_SEAL_H_
#define EPO_CORE_SEARCH_STATE_SEAL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace epo {

struct SearchOptions;

// Tells a flipped bit and another job's state from a state of ours before anything of it is read.
// No defence against forgery: what is behind the seal is still checked. Thread-safe: immutable.
class StateSeal {
 public:
  explicit StateSeal(const SearchOptions& options);

  // A digest of the options and of `state`, then `state`.
  std::string Seal(std::string_view state) const;

  // The state within `blob`, if that is one that Seal() returned for equal options.
  std::optional<std::string_view> Open(std::string_view blob) const;

 private:
  std::string Digest(std::string_view state) const;

  // The hash that the state's continues.
  uint64_t options_;
};

}  // namespace epo

#endif  // EPO_CORE_SEARCH_STATE_SEAL_H_
