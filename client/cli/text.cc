#include "client/cli/text.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <locale.h>
#include <wchar.h>

#include <algorithm>

namespace epo::cli {
namespace {

constexpr char32_t kInvalid = 0xFFFFFFFF;
constexpr char32_t kEmojiPresentation = 0xFE0F;

// The next code point of `text` from `position` on, which moves past it; kInvalid for a byte that
// starts no valid sequence.
char32_t NextCodePoint(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned lead = byte(position);
  const int length = lead < 0x80                    ? 1
                     : lead >= 0xC2 && lead <= 0xDF ? 2
                     : (lead & 0xF0) == 0xE0        ? 3
                     : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                    : 0;
  if (length == 1) return text[position++];
  char32_t code = length == 0 ? 0 : lead & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    if ((byte(position + i) & 0xC0) != 0x80) return ++position, kInvalid;
    code = (code << 6) | (byte(position + i) & 0x3F);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (length == 0 || code < kLeast[length] || code > 0x10FFFF ||
      (code >= 0xD800 && code < 0xE000)) {
    return ++position, kInvalid;
  }
  position += length;
  return code;
}

// wcwidth() in UTF-8, whatever the user's locale is: -1 what cannot be printed, else 0, 1 or 2
// columns.
int CodePointWidth(char32_t code) {
  static const locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  const locale_t before = uselocale(utf8);
  const int width = wcwidth(static_cast<wchar_t>(code));
  uselocale(before);
  return width;
}

// Characters that show nothing of themselves but change how others are shown, and those that break
// lines.
bool IsFormat(char32_t code) {
  return code == 0xAD || code == 0x34F || (code >= 0x600 && code <= 0x605) || code == 0x61C ||
         code == 0x6DD || code == 0x70F || code == 0x115F || code == 0x1160 || code == 0x17B4 ||
         code == 0x17B5 || code == 0x180E || (code >= 0x200B && code <= 0x200F) ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2060 && code <= 0x206F) ||
         code == 0x3164 || code == 0xFEFF || code == 0xFFA0 || (code >= 0xFFF0 && code <= 0xFFFB) ||
         (code >= 0x1BCA0 && code <= 0x1BCA3) || (code >= 0x1D173 && code <= 0x1D17A) ||
         (code >= 0xE0000 && code <= 0xE0FFF);
}

bool IsPrivateUse(char32_t code) { return (code >= 0xE000 && code <= 0xF8FF) || code >= 0xF0000; }

// More marks than this on one character is a stack that climbs over the lines above.
constexpr int kMostMarks = 3;

std::string EscapeImpl(std::string_view text, bool quotes) {
  std::string out;
  out.reserve(text.size() + 8);
  bool has_base = false;
  int marks = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const char32_t code = NextCodePoint(text, position);
    const int width = code == kInvalid ? -1 : CodePointWidth(code);
    const bool mark = width == 0 && code != 0;
    std::string escape;
    if (code == kInvalid) {
      escape = absl::StrFormat("\\x%02x", static_cast<unsigned char>(text[start]));
    } else if (code == '\n') {
      escape = "\\n";
    } else if (code == '\t') {
      escape = "\\t";
    } else if (code == '\r') {
      escape = "\\r";
    } else if (code == '\\') {
      escape = "\\\\";
    } else if (code == '"' && quotes) {
      escape = "\\\"";
    } else if (code < 0x20 || (code >= 0x7F && code < 0xA0)) {
      escape = absl::StrFormat("\\x%02x", static_cast<unsigned>(code));
    } else if (width < 0 || IsFormat(code) || IsPrivateUse(code) ||
               (mark && (!has_base || marks == kMostMarks))) {
      escape = absl::StrFormat("\\u{%x}", static_cast<unsigned>(code));
    }
    if (escape.empty()) {
      out.append(text, start, position - start);
      has_base = true;
      marks = mark ? marks + 1 : 0;
    } else {
      out += escape;
      has_base = false;
      marks = 0;
    }
  }
  return out;
}

// The next unit of `text` that clipping may not split, from `position`, which moves past it: one
// character and its marks.
int NextCluster(std::string_view text, size_t& position) {
  const bool escape = text[position] == '\\';
  int width = std::max(0, CodePointWidth(NextCodePoint(text, position)));
  if (escape && position < text.size()) {
    ++position;
    ++width;
  }
  while (position < text.size()) {
    size_t next = position;
    const char32_t code = NextCodePoint(text, next);
    if (code == kInvalid || CodePointWidth(code) != 0) break;
    // Some terminals widen a character that this selector makes an emoji; a column too many is
    // better than a broken line.
    if (code == kEmojiPresentation && width == 1) width = 2;
    position = next;
  }
  return width;
}

}  // namespace

std::string Escape(std::string_view text) { return EscapeImpl(text, /*quotes=*/false); }

std::string Quote(std::string_view text) {
  return absl::StrCat("\"", EscapeImpl(text, /*quotes=*/true), "\"");
}

std::string EscapeJson(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (size_t position = 0; position < json.size();) {
    const size_t start = position;
    const char32_t code = NextCodePoint(json, position);
    const bool plain = code < 0x7F || (code != kInvalid && code >= 0xA0 && !IsFormat(code));
    if (plain) {
      out.append(json, start, position - start);
    } else if (code < 0x10000) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(code));
    } else {
      const unsigned rest = static_cast<unsigned>(code) - 0x10000;
      absl::StrAppendFormat(&out, "\\u%04x\\u%04x", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    }
  }
  return out;
}

int DisplayWidth(std::string_view text) {
  int width = 0;
  for (size_t position = 0; position < text.size();) width += NextCluster(text, position);
  return width;
}

std::string Clip(std::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  if (width <= 0) return "";
  int used = 0;
  size_t end = 0;
  for (size_t position = 0; position < text.size();) {
    used += NextCluster(text, position);
    if (used > width - 1) break;
    end = position;
  }
  return std::string(text.substr(0, end)) + "…";
}

std::string PadRight(std::string_view text, int width) {
  return std::string(text) + std::string(std::max(0, width - DisplayWidth(text)), ' ');
}

std::string PadLeft(std::string_view text, int width) {
  return std::string(std::max(0, width - DisplayWidth(text)), ' ') + std::string(text);
}

}  // namespace epo::cli
