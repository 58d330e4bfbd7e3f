#include "client/cli/arguments.h"

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <algorithm>

namespace epo::cli {
namespace {

constexpr char kMark = '\x1f';

// More than any prompt has.
constexpr int32_t kMaxPositions = 1 << 20;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::StatusOr<v1::TokenIds> ParseIds(std::string_view text) {
  absl::string_view list = absl::StripAsciiWhitespace(View(text));
  if (list.size() >= 2 && list.front() == '[' && list.back() == ']') {
    list = list.substr(1, list.size() - 2);
  }
  v1::TokenIds ids;
  for (const absl::string_view word :
       absl::StrSplit(list, absl::ByAnyChar(", \t"), absl::SkipEmpty())) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(word, &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", word, "' is no token id; ids are whole numbers, as in 464,3139,286"));
    }
    ids.add_ids(id);
  }
  if (ids.ids().empty()) return absl::InvalidArgumentError("no ids; give some, as in 464,3139,286");
  return ids;
}

absl::StatusOr<std::vector<int32_t>> ParsePositions(std::string_view text) {
  std::vector<int32_t> positions;
  for (const absl::string_view word : absl::StrSplit(View(text), ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(word, absl::MaxSplits('-', 1));
    int32_t first = 0;
    int32_t last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || !absl::SimpleAtoi(ends.back(), &last) ||
        first < 0 || last < first || last >= kMaxPositions) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", word, "' is neither a position, from 0, nor a range of them, as in 0,3-5"));
    }
    for (int32_t position = first; position <= last; ++position) positions.push_back(position);
  }
  return positions;
}

absl::StatusOr<v1::PenaltyRange> ParsePenaltyRange(std::string_view text) {
  const std::vector<absl::string_view> ends = absl::StrSplit(View(text), absl::MaxSplits(':', 1));
  double low = 0;
  double high = 0;
  if (!absl::SimpleAtod(ends.front(), &low) || !absl::SimpleAtod(ends.back(), &high)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", View(text), "' is neither a number nor LO:HI, as in 2.0 or 0.667:6"));
  }
  v1::PenaltyRange range;
  range.set_low(low);
  range.set_high(high);
  return range;
}

absl::StatusOr<absl::Time> ParseDeadline(std::string_view text, absl::Time now) {
  absl::Time time;
  std::string error;
  if (absl::ParseTime(absl::RFC3339_full, View(text), &time, &error) &&
      time != absl::InfiniteFuture() && time != absl::InfinitePast()) {
    return time;
  }
  absl::string_view rest = View(text);
  absl::Duration ahead;
  // Days come first; absl knows the smaller units.
  if (const size_t d = rest.find('d'); d != absl::string_view::npos) {
    int64_t days = 0;
    if (absl::SimpleAtoi(rest.substr(0, d), &days)) {
      ahead = absl::Hours(24) * days;
      rest.remove_prefix(d + 1);
    }
  }
  absl::Duration small;
  const bool only_days = rest.empty() && !text.empty();
  if ((!only_days && !absl::ParseDuration(rest, &small)) || ahead + small <= absl::ZeroDuration() ||
      ahead + small == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", View(text),
        "' is neither a time, as in 2026-01-02T03:04:05Z, nor a duration ahead, as in 2h or 3d"));
  }
  return now + ahead + small;
}

void Protect(std::vector<std::string>& arguments) {
  const auto dashes = std::find(arguments.begin(), arguments.end(), "--");
  for (auto it = arguments.begin(); it != arguments.end(); ++it) {
    const bool list = !it->empty() && it->front() == '[' && it->back() == ']';
    const bool dash = it > dashes && !it->empty() && it->front() == '-';
    if (list || dash) it->insert(it->begin(), kMark);
  }
  if (dashes != arguments.end()) arguments.erase(dashes);
}

std::string Unprotect(std::string_view value) {
  if (!value.empty() && value.front() == kMark) value.remove_prefix(1);
  return std::string(value);
}

CLI::Validator Int32(int32_t least) {
  return CLI::Validator(
      [least](std::string& text) {
        int32_t value = 0;
        if (!absl::SimpleAtoi(text, &value)) {
          return absl::StrCat("'", text, "' is no whole number below 2^31");
        }
        if (value < least) return absl::StrCat(value, " is less than ", least);
        // Without the leading zeros that CLI11 would read as octal.
        text = absl::StrCat(value);
        return std::string();
      },
      "");
}

CLI::Validator Uint64() {
  return CLI::Validator(
      [](std::string& text) {
        uint64_t value = 0;
        if (!absl::SimpleAtoi(text, &value)) {
          return absl::StrCat("'", text, "' is no whole number from 0 to 2^64 - 1");
        }
        text = absl::StrCat(value);
        return std::string();
      },
      "");
}

CLI::Validator Number() {
  return CLI::Validator(
      [](std::string& text) {
        double value = 0;
        return absl::SimpleAtod(text, &value) ? std::string()
                                              : absl::StrCat("'", text, "' is no number");
      },
      "");
}

CLI::Option* AddPromptOption(CLI::App* app, const std::string& name,
                             const std::string& description) {
  // Read from the option's raw results: CLI11's conversion to a list of strings has a meaning of
  // its own for some texts ("{}").
  CLI::Option* option = app->add_option(
      name, [](const CLI::results_t&) { return true; }, description);
  option->expected(1, CLI::detail::expected_max_vector_size);
  option->allow_extra_args(option->get_positional());
  return option;
}

std::vector<PromptArgument> CollectPrompts(const CLI::App* app, const CLI::Option* text,
                                           const CLI::Option* ids) {
  std::vector<PromptArgument> prompts;
  size_t texts_read = 0;
  size_t ids_read = 0;
  for (const CLI::Option* option : app->parse_order()) {
    if (option != text && option != ids) continue;
    PromptArgument prompt;
    prompt.flag = option->get_name();
    if (option == text) {
      prompt.prompt.set_text(Unprotect(text->results()[texts_read++]));
    } else {
      const auto parsed = ParseIds(Unprotect(ids->results()[ids_read++]));
      if (!parsed.ok())
        throw CLI::ValidationError(prompt.flag, std::string(parsed.status().message()));
      *prompt.prompt.mutable_ids() = *parsed;
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace epo::cli
