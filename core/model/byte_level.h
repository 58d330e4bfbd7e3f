// The alphabet in which byte-level BPE spells its tokens: one printable character for each of the
// 256 bytes, the one of GPT-2.
#ifndef EPO_CORE_MODEL_BYTE_LEVEL_H_
#define EPO_CORE_MODEL_BYTE_LEVEL_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace epo {

// The character, in UTF-8, that stands for `byte`.
const std::string& ByteLevelCharacter(uint8_t byte);

// The bytes that `token` spells. A token with any character outside the alphabet stands for its own
// UTF-8 bytes, as the ByteLevel decoder of Hugging Face `tokenizers` has it (so an added token of
// two spaces is two spaces). `token` is valid UTF-8.
std::string ByteLevelBytes(std::string_view token);

// Whether each character of `token`, valid UTF-8, is one of the alphabet.
bool IsByteLevel(std::string_view token);

}  // namespace epo

#endif  // EPO_CORE_MODEL_BYTE_LEVEL_H_
