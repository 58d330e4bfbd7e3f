// Tokenises for the parity tests: `tokenize_tool encode|decode tokenizer.json`, records on stdin
// and stdout.
//
// A record is a 32-bit count and that many bytes of text, or that many 32-bit ids, in the machine's
// byte order.
#include <cstdint>
#include <iostream>
#include <string>
#include <string_view>

#include "core/model/tokenizer.h"

namespace {

bool ReadCount(uint32_t& count) {
  return static_cast<bool>(std::cin.read(reinterpret_cast<char*>(&count), sizeof(count)));
}

// Reads `count` items of a record into `items`.
template <typename Items>
bool ReadItems(uint32_t count, Items& items) {
  items.resize(count);
  return static_cast<bool>(
      std::cin.read(reinterpret_cast<char*>(items.data()), count * sizeof(items[0])));
}

template <typename Items>
void Write(const Items& items) {
  const auto count = static_cast<uint32_t>(items.size());
  std::cout.write(reinterpret_cast<const char*>(&count), sizeof(count));
  std::cout.write(reinterpret_cast<const char*>(items.data()), count * sizeof(items[0]));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc == 3 ? argv[1] : "";
  if (mode != "encode" && mode != "decode") {
    std::cerr << "usage: tokenize_tool encode|decode TOKENIZER_JSON\n";
    return 2;
  }
  const auto tokenizer = epo::Tokenizer::Load(argv[2]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().ToString() << "\n";
    return 1;
  }
  std::ios::sync_with_stdio(false);
  std::string text;
  epo::Prompt ids;
  for (uint32_t count = 0; ReadCount(count);) {
    if (mode == "encode" ? !ReadItems(count, text) : !ReadItems(count, ids)) {
      std::cerr << "a record is cut short\n";
      return 1;
    }
    if (mode == "encode") {
      Write((*tokenizer)->Encode(text));
    } else {
      Write((*tokenizer)->Decode(ids));
    }
  }
  return 0;
}
