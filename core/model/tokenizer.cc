#include "core/model/tokenizer.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/byte_level.h"
#include "core/model/tokenizer_added.h"
#include "core/model/tokenizer_bpe.h"
#include "core/model/tokenizer_json.h"
#include "core/model/tokenizer_split.h"
#include "core/model/utf8.h"

namespace epo {
namespace {

std::vector<AddedToken> Select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  for (const AddedToken& token : tokens) {
    if (token.normalized == normalized) selected.push_back(token);
  }
  return selected;
}

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerSpec spec)
      : bpe_(std::move(spec.bpe)),
        as_written_(Select(spec.added_tokens, /*normalized=*/false)),
        normalized_(Select(spec.added_tokens, /*normalized=*/true)),
        splitters_(std::move(spec.splitters)) {
    tokens_.resize(spec.vocabulary.size());
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const TokenizerSpec::Token& token = spec.vocabulary[id];
      tokens_[id] = {ByteLevelBytes(token.text), token.exists, /*special=*/false};
    }
    for (const AddedToken& token : spec.added_tokens) {
      if (static_cast<size_t>(token.id) >= tokens_.size()) tokens_.resize(token.id + 1);
      tokens_[token.id] = {ByteLevelBytes(token.content), /*exists=*/true, token.special};
    }
  }

  Prompt Encode(std::string_view text) const override {
    std::string replaced;
    if (!IsValidUtf8(text)) {
      replaced = ReplaceInvalidUtf8(text);
      text = replaced;
    }
    Prompt ids;
    Scratch scratch;
    for (const auto& outer : as_written_.Split(text)) {
      if (outer.id >= 0) {
        ids.push_back(outer.id);
        continue;
      }
      for (const auto& inner : normalized_.Split(outer.text)) {
        if (inner.id >= 0) {
          ids.push_back(inner.id);
        } else {
          EncodeText(inner.text, 0, scratch, ids);
        }
      }
    }
    return ids;
  }

  std::string_view TokenBytes(TokenId id) const override {
    return IsToken(id) ? std::string_view(tokens_[id].bytes) : std::string_view();
  }

  bool IsToken(TokenId id) const override {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() && tokens_[id].exists;
  }

  bool IsSpecial(TokenId id) const override { return IsToken(id) && tokens_[id].special; }

  int vocab_size() const override { return static_cast<int>(tokens_.size()); }

 private:
  struct Token {
    std::string bytes;
    bool exists = false;
    bool special = false;
  };

  struct Scratch {
    Splitter::Scratch splitter;
    Bpe::Scratch bpe;
  };

  // Encodes `text`, which has no added token, from the splitter `step` on.
  void EncodeText(std::string_view text, size_t step, Scratch& scratch, Prompt& ids) const {
    if (step == splitters_.size()) {
      bpe_.Encode(text, scratch.bpe, ids);
      return;
    }
    splitters_[step].Split(text, scratch.splitter, [&](std::string_view piece) {
      EncodeText(piece, step + 1, scratch, ids);
    });
  }

  Bpe bpe_;
  AddedTokenFinder as_written_;
  AddedTokenFinder normalized_;
  std::vector<Splitter> splitters_;
  std::vector<Token> tokens_;
};

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": no such file"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": cannot be read: ", std::strerror(errno)));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(*text);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(),
                        absl::StrCat(path.string(), ": ", spec.status().message()));
  }
  return std::make_unique<BpeTokenizer>(*std::move(spec));
}

std::string Tokenizer::DecodeBytes(const Prompt& ids) const {
  std::string bytes;
  for (const TokenId id : ids) bytes.append(TokenBytes(id));
  return bytes;
}

std::string Tokenizer::Decode(const Prompt& ids) const {
  return ReplaceInvalidUtf8(DecodeBytes(ids));
}

}  // namespace epo
