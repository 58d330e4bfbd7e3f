// Arguments that are more than a number or a word.
#ifndef EPO_CLIENT_CLI_ARGUMENTS_H_
#define EPO_CLIENT_CLI_ARGUMENTS_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "epo/v1/frontier.pb.h"
#include "epo/v1/job.pb.h"

namespace epo::cli {

// "1,2,3", also with spaces or in brackets as JSON output shows ids. INVALID_ARGUMENT names what is
// no 32-bit integer.
absl::StatusOr<v1::TokenIds> ParseIds(std::string_view text);

// "0,3-5": the positions 0, 3, 4 and 5. INVALID_ARGUMENT names what is neither a position nor a
// range.
absl::StatusOr<std::vector<int32_t>> ParsePositions(std::string_view text);

// "2.0" or "0.5:6".
absl::StatusOr<v1::PenaltyRange> ParsePenaltyRange(std::string_view text);

// "2026-01-02T03:04:05Z" (RFC 3339) or what lies so far ahead of `now`, as in "90m", "2h" or
// "3d12h".
absl::StatusOr<absl::Time> ParseDeadline(std::string_view text, absl::Time now);

// Marks the arguments that CLI11 would not take as they stand, those in brackets, which it reads as
// lists, and those behind a "--" that begin with a dash, and takes that "--" away. Unprotect()
// takes the mark off a value.
void Protect(std::vector<std::string>& arguments);
std::string Unprotect(std::string_view value);

// For Option::transform(): checks of a value with messages that say what is wanted: a 32-bit
// integer of at least `least`, an integer from 0 to 2^64 - 1, a number (NaN and infinity included;
// the server says what it takes).
CLI::Validator Int32(int32_t least = std::numeric_limits<int32_t>::min());
CLI::Validator Uint64();
CLI::Validator Number();

// A prompt and the option that gave it ("--initial-ids").
struct PromptArgument {
  v1::Prompt prompt;
  std::string flag;
};

// An option whose values are texts, or lists of ids, one an occurrence; `app` must be parsed before
// CollectPrompts() reads them.
CLI::Option* AddPromptOption(CLI::App* app, const std::string& name,
                             const std::string& description);

// The prompts of the two options in the order of the command line. Throws CLI::ValidationError for
// ids that are none.
std::vector<PromptArgument> CollectPrompts(const CLI::App* app, const CLI::Option* text,
                                           const CLI::Option* ids);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_ARGUMENTS_H_
