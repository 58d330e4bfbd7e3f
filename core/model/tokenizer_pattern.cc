#include "core/model/tokenizer_pattern.h"

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// The insides of character classes. PCRE2 10.42 knows Unicode 14; the Oniguruma in `tokenizers`
// knows Unicode 16: the ranges are what came in between. tests/parity/tokenizer compares them.
constexpr std::string_view kLetters =
    R"(\p{L}\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}-\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E})"
    R"(\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10})"
    R"(\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D})"
    R"(\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D})"
    R"(\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNumbers =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9})"
    R"(\x{1E5F1}-\x{1E5FA})";
// The Digits pre-tokenizer asks Rust, which is at Unicode 17.
constexpr std::string_view kNumbersOfUnicode17 = R"(\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6})";
// White_Space. PCRE2's own \s has U+180E too.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

bool IsPunctuation(char c) {
  return std::string_view(R"(!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~)").find(c) != std::string_view::npos;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// One pass over a pattern, copying what means the same to both libraries.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) {
      if (absl::Status status = Next(); !status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  struct Group {
    bool repeats = false;     // something inside repeats
    bool alternates = false;  // there are alternatives inside
  };

  static absl::Status Unsupported(std::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression's ", std::string(what), " is not supported"));
  }

  bool Take(std::string_view prefix) {
    if (!rest_.starts_with(prefix)) return false;
    rest_.remove_prefix(prefix.size());
    return true;
  }

  absl::Status Next() {
    const bool after_group = after_group_;
    after_group_ = false;
    switch (rest_.front()) {
      case '\\':
        repeatable_ = true;
        return Escape(/*in_class=*/false);
      case '[':
        repeatable_ = true;
        return Class();
      case '(':
        repeatable_ = false;
        return Open();
      case ')':
        return Close();
      case '?':
      case '*':
      case '+':
      case '{':
        return Quantifier(after_group);
      case '.':
      case '^':
      case '$':
        return Unsupported(rest_.substr(0, 1));
      default:
        repeatable_ = rest_.front() != '|';
        if (!repeatable_ && !groups_.empty()) groups_.back().alternates = true;
        Copy();
        return absl::OkStatus();
    }
  }

  void Copy() {
    out_.push_back(rest_.front());
    rest_.remove_prefix(1);
  }

  absl::Status Open() {
    rest_.remove_prefix(1);
    out_.push_back('(');
    groups_.push_back({});
    if (!rest_.starts_with('?')) return absl::OkStatus();
    for (const std::string_view kind : {"?:", "?i:", "?=", "?!"}) {
      if (Take(kind)) {
        out_.append(kind);
        return absl::OkStatus();
      }
    }
    return Unsupported(absl::StrCat("group (", std::string(rest_.substr(0, 2))));
  }

  absl::Status Close() {
    if (groups_.empty())
      return absl::InvalidArgumentError("the regular expression has an unmatched )");
    closed_ = groups_.back();
    groups_.pop_back();
    if (!groups_.empty()) {
      groups_.back().repeats |= closed_.repeats;
      groups_.back().alternates |= closed_.alternates;
    }
    after_group_ = true;
    repeatable_ = true;
    Copy();
    return absl::OkStatus();
  }

  absl::Status Quantifier(bool after_group) {
    if (!repeatable_)
      return Unsupported(absl::StrCat("quantifier ", std::string(rest_.substr(0, 1)), " here"));
    if (after_group && closed_.repeats) return Unsupported("repetition within a repetition");
    if (after_group && closed_.alternates && rest_.front() != '?')
      return Unsupported("alternation within a repetition");
    repeatable_ = false;
    if (!groups_.empty()) groups_.back().repeats = true;
    if (rest_.front() != '{') {
      Copy();
      return absl::OkStatus();
    }
    const size_t end = rest_.find('}');
    const std::string_view counts = rest_.substr(1, end == std::string_view::npos ? end : end - 1);
    const size_t comma = counts.find(',');
    const bool well_formed =
        end != std::string_view::npos && !counts.empty() && IsDigit(counts.front()) &&
        counts.find_first_not_of("0123456789,") == std::string_view::npos &&
        (comma == std::string_view::npos || counts.find(',', comma + 1) == std::string_view::npos);
    if (!well_formed) return Unsupported("brace { that counts nothing");
    out_.append(rest_.substr(0, end + 1));
    rest_.remove_prefix(end + 1);
    return absl::OkStatus();
  }

  absl::Status Class() {
    rest_.remove_prefix(1);
    out_.push_back('[');
    if (rest_.starts_with('^')) Copy();
    if (rest_.starts_with(']')) return Unsupported("empty class");
    bool after_set = false;
    while (!rest_.starts_with(']')) {
      if (rest_.empty())
        return absl::InvalidArgumentError("the regular expression has an unmatched [");
      if (rest_.starts_with('[') || rest_.starts_with("&&"))
        return Unsupported("set operation in a class");
      const std::string_view after = rest_.substr(1);
      if (rest_.starts_with('-') && !after.starts_with(']') && (after_set || IsSet(after))) {
        return Unsupported("range from or to a set in a class");
      }
      after_set = IsSet(rest_);
      if (rest_.starts_with('\\')) {
        if (absl::Status status = Escape(/*in_class=*/true); !status.ok()) return status;
      } else {
        Copy();
      }
    }
    Copy();
    return absl::OkStatus();
  }

  // Whether `text` begins with an escape that stands for many characters.
  static bool IsSet(std::string_view text) {
    return text.size() >= 2 && text[0] == '\\' &&
           std::string_view("pPsS").find(text[1]) != std::string_view::npos;
  }

  absl::Status Escape(bool in_class) {
    const auto insides = [&](bool negated, std::string_view ranges) {
      if (in_class && negated) return Unsupported("negation in a class");
      absl::StrAppend(&out_,
                      in_class  ? ""
                      : negated ? "[^"
                                : "[",
                      std::string(ranges), in_class ? "" : "]");
      return absl::OkStatus();
    };
    if (Take(R"(\p{L})")) return insides(false, kLetters);
    if (Take(R"(\P{L})")) return insides(true, kLetters);
    if (Take(R"(\p{N})")) return insides(false, kNumbers);
    if (Take(R"(\P{N})")) return insides(true, kNumbers);
    if (Take(R"(\s)")) return insides(false, kSpaces);
    if (Take(R"(\S)")) return insides(true, kSpaces);
    const std::string_view escape = rest_.substr(0, 2);
    if (escape == R"(\r)" || escape == R"(\n)" || escape == R"(\t)" ||
        (escape.size() == 2 && IsPunctuation(escape[1]))) {
      Copy();
      Copy();
      return absl::OkStatus();
    }
    const size_t brace =
        rest_.starts_with(R"(\p{)") || rest_.starts_with(R"(\P{)") ? rest_.find('}') : 1;
    return Unsupported(absl::StrCat(
        "escape ", std::string(rest_.substr(0, brace == std::string_view::npos ? 2 : brace + 1))));
  }

  std::string_view rest_;
  std::string out_;
  std::vector<Group> groups_;
  Group closed_;              // the group closed last
  bool after_group_ = false;  // that group ends right here
  bool repeatable_ = false;   // a quantifier may follow
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

std::string DigitsPattern(bool individual) {
  return absl::StrCat("[", std::string(kNumbers), std::string(kNumbersOfUnicode17), "]",
                      individual ? "" : "+");
}

}  // namespace epo
