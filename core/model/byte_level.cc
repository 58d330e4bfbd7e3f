#include "core/model/byte_level.h"

#include <array>
#include <cstddef>
#include <optional>

namespace epo {
namespace {

constexpr int kAlphabetEnd =
    0x100 + 68;  // the 68 bytes that are not printable are moved up, in order, from U+0100

struct Alphabet {
  std::array<std::string, 256> character;
  std::array<int, kAlphabetEnd> byte;  // by code point; -1 outside the alphabet
};

bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  int moved = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = IsPrintable(byte) ? byte : 0x100 + moved++;
    alphabet.byte[code_point] = byte;
    std::string& character = alphabet.character[byte];
    if (code_point < 0x80) {
      character = {static_cast<char>(code_point)};
    } else {
      character = {static_cast<char>(0xC0 | (code_point >> 6)),
                   static_cast<char>(0x80 | (code_point & 0x3F))};
    }
  }
  return alphabet;
}

const Alphabet& GetAlphabet() {
  static const Alphabet& alphabet = *new Alphabet(MakeAlphabet());
  return alphabet;
}

// Nothing when a character is outside the alphabet. The alphabet needs one or two bytes of UTF-8 a
// character.
std::optional<std::string> Spell(std::string_view token) {
  const Alphabet& alphabet = GetAlphabet();
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size(); ++i) {
    int code_point = static_cast<uint8_t>(token[i]);
    if (code_point >= 0xE0) return std::nullopt;
    if (code_point >= 0x80) {
      code_point = (code_point & 0x1F) << 6 | (static_cast<uint8_t>(token[++i]) & 0x3F);
    }
    if (code_point >= kAlphabetEnd || alphabet.byte[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet.byte[code_point]));
  }
  return bytes;
}

}  // namespace

const std::string& ByteLevelCharacter(uint8_t byte) { return GetAlphabet().character[byte]; }

std::string ByteLevelBytes(std::string_view token) {
  return Spell(token).value_or(std::string(token));
}

bool IsByteLevel(std::string_view token) { return Spell(token).has_value(); }

}  // namespace epo
