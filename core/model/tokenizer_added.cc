#include "core/model/tokenizer_added.h"

#include <cstddef>
#include <utility>

namespace epo {
namespace {

// The white space of Unicode, spelled in UTF-8.
constexpr std::string_view kWhiteSpace[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",           " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81", "\xE2\x80\x82",
    "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88",
    "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F",
    "\xE3\x80\x80"};

// The bytes of white space that `text` begins with.
size_t LeadingSpace(std::string_view text) {
  size_t length = 0;
  for (bool more = true; more;) {
    more = false;
    for (const std::string_view space : kWhiteSpace) {
      if (text.substr(length).starts_with(space)) {
        length += space.size();
        more = true;
        break;
      }
    }
  }
  return length;
}

size_t TrailingSpace(std::string_view text) {
  const size_t size = text.size();
  for (bool more = true; more;) {
    more = false;
    for (const std::string_view space : kWhiteSpace) {
      if (text.ends_with(space)) {
        text.remove_suffix(space.size());
        more = true;
        break;
      }
    }
  }
  return size - text.size();
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  token_of_node_.push_back(kNoToken);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    begins_token_[static_cast<uint8_t>(content.front())] = true;
    uint32_t node = 0;
    for (const char c : content) {
      const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(c);
      const auto [child, inserted] = children_.try_emplace(edge, token_of_node_.size());
      if (inserted) token_of_node_.push_back(kNoToken);
      node = child->second;
    }
    token_of_node_[node] = static_cast<int>(i);
  }
}

int AddedTokenFinder::LongestAt(std::string_view text) const {
  int longest = kNoToken;
  uint32_t node = 0;
  for (const char c : text) {
    const auto child = children_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(c));
    if (child == children_.end()) break;
    node = child->second;
    if (token_of_node_[node] != kNoToken) longest = token_of_node_[node];
  }
  return longest;
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::Split(std::string_view text) const {
  std::vector<Part> parts;
  size_t done = 0;
  size_t at = 0;
  while (!tokens_.empty()) {
    while (at < text.size() && !begins_token_[static_cast<uint8_t>(text[at])]) ++at;
    if (at == text.size()) break;
    const int index = LongestAt(text.substr(at));
    if (index == kNoToken) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at;
    size_t end = at + token.content.size();
    at = end;
    if (token.lstrip && done < begin) begin -= TrailingSpace(text.substr(done, begin - done));
    if (token.rstrip) end += LeadingSpace(text.substr(end));
    if (done < begin) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({{}, token.id});
    // The search goes on behind the token itself, not behind the space it took: `tokenizers` finds
    // an added token in there a second time, and goes on from that one.
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
  return parts;
}

}  // namespace epo
