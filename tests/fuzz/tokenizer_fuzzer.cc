// A tokenizer.json, and behind a NUL byte, which JSON cannot hold, a text: what loads encodes any
// text and decodes any ids.
#include "core/model/tokenizer.h"
#include "core/model/utf8.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using epo::Require;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string_view json = bytes.substr(0, bytes.find('\0'));
  const epo::InputFile input(json);
  const auto loaded = epo::Tokenizer::Load(input.path());
  if (!loaded.ok()) {
    epo::RequireGoodError(loaded.status(), input.path());
    return 0;
  }
  const epo::Tokenizer& tokenizer = **loaded;
  Require(tokenizer.vocab_size() > 0, "there is a token");
  for (const std::string_view text :
       // Short: a regular expression may still take time that grows with a power of the length.
       {json.size() < size ? bytes.substr(json.size() + 1, 100) : std::string_view(),
        std::string_view(
            "Hello  there's 1234\n\n\t<|endoftext|> \xE2\x82\xAC\xF0\x9F\x98\x80 \xFF!")}) {
    epo::Prompt ids = tokenizer.Encode(text);
    for (const epo::TokenId id : ids) {
      Require(tokenizer.IsToken(id) && id < tokenizer.vocab_size(), "text becomes tokens");
    }
    Require(epo::IsValidUtf8(tokenizer.Decode(ids)), "tokens become text");
    for (const epo::TokenId id : {-1, 0, tokenizer.vocab_size(), INT32_MIN, INT32_MAX}) {
      Require(tokenizer.IsToken(id) || tokenizer.TokenBytes(id).empty(), "no token has no bytes");
      ids.push_back(id);
    }
    Require(epo::IsValidUtf8(tokenizer.Decode(ids)), "any ids become text");
  }
  return 0;
}
