#include "core/model/tokenizer_json.h"

#include <cstddef>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/byte_level.h"
#include "core/model/json_text.h"
#include "core/model/tokenizer_json_object.h"
#include "core/model/tokenizer_pattern.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using tokenizer_json::Bad;
using tokenizer_json::Json;
using tokenizer_json::Object;
using tokenizer_json::ReadId;

class Parser {
 public:
  absl::StatusOr<TokenizerSpec> Run(const Json& root) {
    absl::StatusOr<Object> file = Object::From(root, "");
    if (!file.ok()) return absl::InvalidArgumentError("expected a JSON object");
    for (const absl::Status& status :
         {file->CheckKeys({"version", "truncation", "padding", "added_tokens", "normalizer",
                           "pre_tokenizer", "post_processor", "decoder", "model"}),
          file->Only("version", {"1.0"}), Null(*file, "truncation"), Null(*file, "padding"),
          Null(*file, "normalizer")}) {
      if (!status.ok()) return status;
    }
    for (const auto step : {&Parser::Model, &Parser::AddedTokens, &Parser::PreTokenizer,
                            &Parser::PostProcessor, &Parser::Decoder}) {
      if (absl::Status status = (this->*step)(*file); !status.ok()) return status;
    }
    return std::move(spec_);
  }

 private:
  // Fails, with the type of what is there, unless `key` is null.
  static absl::Status Null(const Object& file, const std::string& key) {
    const Json* value = file.Find(key);
    if (value == nullptr) return absl::OkStatus();
    const auto type = value->is_object() ? value->find("type") : value->end();
    return Bad(key, absl::StrCat(type != value->end() ? ShowJson(*type) : ShowJson(*value),
                                 " is not supported, only null"));
  }

  // The type of the object under `name`.
  static absl::StatusOr<std::string> Type(const Json& value, const std::string& name) {
    absl::StatusOr<Object> object = Object::From(value, name);
    if (!object.ok()) return object.status();
    return object->String("type");
  }

  static absl::Status UnsupportedType(const std::string& name, const std::string& type) {
    return Bad(absl::StrCat(name, ".type"), absl::StrCat(QuoteJson(type), " is not supported"));
  }

  absl::Status Model(const Object& file) {
    absl::StatusOr<const Json*> value = file.Require("model");
    if (!value.ok()) return value.status();
    absl::StatusOr<Object> model = Object::From(**value, "model");
    if (!model.ok()) return model.status();
    // Files of before 2021 have no type; only BPE has merges.
    for (const absl::Status& status :
         {model->Only("type", {"BPE"}),
          model->CheckKeys({"type", "dropout", "unk_token", "continuing_subword_prefix",
                            "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges",
                            "vocab", "merges"}),
          model->Only("dropout", {0}), model->Only("continuing_subword_prefix", {""}),
          model->Only("end_of_word_suffix", {""}), model->Only("byte_fallback", {false}),
          Vocabulary(*model), Merges(*model), Unknown(*model)}) {
      if (!status.ok()) return status;
    }
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = ids_.find(ByteLevelCharacter(static_cast<uint8_t>(byte)));
      spec_.bpe.byte_tokens[byte] = found == ids_.end() ? -1 : found->second;
    }
    absl::StatusOr<bool> ignore_merges = model->BoolOr("ignore_merges", false);
    if (!ignore_merges.ok()) return ignore_merges.status();
    if (*ignore_merges) {
      for (const auto& [text, id] : ids_) {
        if (IsByteLevel(text)) spec_.bpe.whole_words.emplace(ByteLevelBytes(text), id);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Vocabulary(const Object& model) {
    absl::StatusOr<const Json*> vocab = model.Require("vocab");
    if (!vocab.ok()) return vocab.status();
    if (!(*vocab)->is_object()) {
      return Bad("model.vocab", absl::StrCat("expected an object, got ", ShowJson(**vocab)));
    }
    if ((*vocab)->empty()) return Bad("model.vocab", "has no token");
    ids_.reserve((*vocab)->size());
    for (const auto& [text, value] : (*vocab)->items()) {
      const std::string name = absl::StrCat("model.vocab[", QuoteJson(text), "]");
      absl::StatusOr<TokenId> id = ReadId(value, name);
      if (!id.ok()) return id.status();
      if (static_cast<size_t>(*id) >= spec_.vocabulary.size()) spec_.vocabulary.resize(*id + 1);
      TokenizerSpec::Token& token = spec_.vocabulary[*id];
      if (token.exists) {
        return Bad(name, absl::StrCat("id ", *id, " is also that of ", QuoteJson(token.text)));
      }
      token = {text, true};
      ids_.emplace(text, *id);
    }
    return absl::OkStatus();
  }

  absl::Status Merges(const Object& model) {
    absl::StatusOr<const Json*> merges = model.Require("merges");
    if (!merges.ok()) return merges.status();
    if (!(*merges)->is_array()) {
      return Bad("model.merges", absl::StrCat("expected an array, got ", ShowJson(**merges)));
    }
    absl::flat_hash_set<std::pair<TokenId, TokenId>> seen;
    seen.reserve((*merges)->size());
    spec_.bpe.merges.reserve((*merges)->size());
    for (const Json& entry : **merges) {
      const std::string name = absl::StrCat("model.merges[", spec_.bpe.merges.size(), "]");
      std::string left;
      std::string right;
      if (!SplitMerge(entry, left, right)) {
        return Bad(name, absl::StrCat(R"(expected "a b" or ["a", "b"], got )", ShowJson(entry)));
      }
      MergeRule rule;
      for (const auto& [text, id] : {std::pair<std::string, TokenId*>{left, &rule.left},
                                     {right, &rule.right},
                                     {left + right, &rule.result}}) {
        const auto found = ids_.find(text);
        if (found == ids_.end())
          return Bad(name, absl::StrCat(QuoteJson(text), " is not in model.vocab"));
        *id = found->second;
      }
      if (!seen.emplace(rule.left, rule.right).second) {
        return Bad(name,
                   absl::StrCat(QuoteJson(left), " and ", QuoteJson(right), " are merged before"));
      }
      spec_.bpe.merges.push_back(rule);
    }
    return absl::OkStatus();
  }

  static bool SplitMerge(const Json& entry, std::string& left, std::string& right) {
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
        return false;
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_string())
        return false;
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    }
    return !left.empty() && !right.empty();
  }

  absl::Status Unknown(const Object& model) {
    absl::StatusOr<bool> fuse = model.BoolOr("fuse_unk", false);
    if (!fuse.ok()) return fuse.status();
    spec_.bpe.fuse_unknown = *fuse;
    if (model.Find("unk_token") == nullptr) return absl::OkStatus();
    absl::StatusOr<std::string> text = model.String("unk_token");
    if (!text.ok()) return text.status();
    const auto found = ids_.find(*text);
    if (found == ids_.end())
      return Bad("model.unk_token", absl::StrCat(QuoteJson(*text), " is not in model.vocab"));
    spec_.bpe.unknown = found->second;
    return absl::OkStatus();
  }

  absl::Status AddedTokens(const Object& file) {
    const Json* tokens = file.Find("added_tokens");
    if (tokens == nullptr) return absl::OkStatus();
    if (!tokens->is_array())
      return Bad("added_tokens", absl::StrCat("expected an array, got ", ShowJson(*tokens)));
    // `tokenizers` takes no id from the file: it numbers what is not in the vocabulary from the
    // vocabulary's size on.
    auto next_id = static_cast<TokenId>(ids_.size());
    absl::flat_hash_set<std::string> seen;
    for (size_t i = 0; i < tokens->size(); ++i) {
      const std::string name = absl::StrCat("added_tokens[", i, "]");
      absl::StatusOr<AddedToken> token = ReadAddedToken((*tokens)[i], name);
      if (!token.ok()) return token.status();
      if (!seen.insert(token->content).second) {
        return Bad(absl::StrCat(name, ".content"),
                   absl::StrCat(QuoteJson(token->content), " is added before"));
      }
      const auto known = ids_.find(token->content);
      const TokenId expected = known != ids_.end() ? known->second : next_id++;
      if (token->id != expected) {
        return Bad(
            absl::StrCat(name, ".id"),
            absl::StrCat(
                token->id, " contradicts ", expected, ", which is ", QuoteJson(token->content),
                "'s ", known != ids_.end() ? "in model.vocab" : "by its place after model.vocab"));
      }
      if (known == ids_.end() && static_cast<size_t>(token->id) < spec_.vocabulary.size() &&
          spec_.vocabulary[token->id].exists) {
        return Bad(absl::StrCat(name, ".id"),
                   absl::StrCat(token->id, " is also that of ",
                                QuoteJson(spec_.vocabulary[token->id].text)));
      }
      spec_.added_tokens.push_back(*std::move(token));
    }
    return absl::OkStatus();
  }

  static absl::StatusOr<AddedToken> ReadAddedToken(const Json& value, const std::string& name) {
    absl::StatusOr<Object> object = Object::From(value, name);
    if (!object.ok()) return object.status();
    for (const absl::Status& status : {object->CheckKeys({"id", "content", "single_word", "lstrip",
                                                          "rstrip", "normalized", "special"}),
                                       object->Only("single_word", {false})}) {
      if (!status.ok()) return status;
    }
    AddedToken token;
    absl::StatusOr<const Json*> id_value = object->Require("id");
    if (!id_value.ok()) return id_value.status();
    absl::StatusOr<TokenId> id = ReadId(**id_value, object->Key("id"));
    if (!id.ok()) return id.status();
    token.id = *id;
    absl::StatusOr<std::string> content = object->String("content");
    if (!content.ok()) return content.status();
    if (content->empty()) return Bad(object->Key("content"), "is empty");
    token.content = *std::move(content);
    for (const auto& [key, flag] : {std::pair{"lstrip", &token.lstrip},
                                    {"rstrip", &token.rstrip},
                                    {"normalized", &token.normalized},
                                    {"special", &token.special}}) {
      absl::StatusOr<bool> read = object->Bool(key);
      if (!read.ok()) return read.status();
      *flag = *read;
    }
    return token;
  }

  absl::Status PreTokenizer(const Object& file) {
    absl::StatusOr<const Json*> value = file.Require("pre_tokenizer");
    if (!value.ok()) return value.status();
    if (absl::Status status = PreTokenizerStep(**value, "pre_tokenizer", 0); !status.ok())
      return status;
    if (!byte_level_) return Bad("pre_tokenizer", "one without ByteLevel is not supported");
    return absl::OkStatus();
  }

  absl::Status PreTokenizerStep(const Json& value, const std::string& name, int depth) {
    constexpr int kMostDepth = 8;
    absl::StatusOr<std::string> type = Type(value, name);
    if (!type.ok()) return type.status();
    const Object step = *Object::From(value, name);
    // What comes after ByteLevel would see its alphabet in place of the text.
    if (byte_level_)
      return Bad(name, absl::StrCat(QuoteJson(*type), " after ByteLevel is not supported"));
    if (*type == "Sequence" && depth < kMostDepth) {
      return ForEach(step, "pretokenizers", [&](const Json& inner, const std::string& inner_name) {
        return PreTokenizerStep(inner, inner_name, depth + 1);
      });
    }
    if (*type == "ByteLevel") return ByteLevelStep(step);
    if (*type == "Digits") return DigitsStep(step);
    if (*type == "Split") return SplitStep(step);
    return UnsupportedType(name, *type);
  }

  // Calls on_item(item, its name) for each item of the array under `key`.
  template <typename OnItem>
  static absl::Status ForEach(const Object& object, const std::string& key, OnItem on_item) {
    if (absl::Status status = object.CheckKeys({"type", key.c_str()}); !status.ok()) return status;
    absl::StatusOr<const Json*> items = object.Require(key);
    if (!items.ok()) return items.status();
    if (!(*items)->is_array())
      return Bad(object.Key(key), absl::StrCat("expected an array, got ", ShowJson(**items)));
    for (size_t i = 0; i < (*items)->size(); ++i) {
      absl::Status status = on_item((**items)[i], absl::StrCat(object.Key(key), "[", i, "]"));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ByteLevelStep(const Object& step) {
    for (const absl::Status& status :
         {step.CheckKeys({"type", "add_prefix_space", "trim_offsets", "use_regex"}),
          step.Require("add_prefix_space").status(), step.Only("add_prefix_space", {false})}) {
      if (!status.ok()) return status;
    }
    absl::StatusOr<bool> use_regex = step.BoolOr("use_regex", true);
    if (!use_regex.ok()) return use_regex.status();
    byte_level_ = true;
    return *use_regex ? AddPattern(kByteLevelPattern, step.Key("use_regex")) : absl::OkStatus();
  }

  absl::Status DigitsStep(const Object& step) {
    if (absl::Status status = step.CheckKeys({"type", "individual_digits"}); !status.ok())
      return status;
    absl::StatusOr<bool> individual = step.Bool("individual_digits");
    if (!individual.ok()) return individual.status();
    return AddSplitter(DigitsPattern(*individual), step.Key("individual_digits"));
  }

  absl::Status SplitStep(const Object& step) {
    for (const absl::Status& status :
         {step.CheckKeys({"type", "pattern", "behavior", "invert"}),
          step.Require("behavior").status(), step.Only("behavior", {"Isolated"}),
          step.Only("invert", {false})}) {
      if (!status.ok()) return status;
    }
    absl::StatusOr<const Json*> value = step.Require("pattern");
    if (!value.ok()) return value.status();
    absl::StatusOr<Object> pattern = Object::From(**value, step.Key("pattern"));
    if (!pattern.ok()) return pattern.status();
    if (absl::Status status = pattern->CheckKeys({"Regex"}); !status.ok()) return status;
    absl::StatusOr<std::string> regex = pattern->String("Regex");
    if (!regex.ok()) return regex.status();
    return AddPattern(*regex, pattern->Key("Regex"));
  }

  absl::Status AddPattern(std::string_view pattern, const std::string& name) {
    absl::StatusOr<std::string> translated = TranslatePattern(pattern);
    if (!translated.ok()) return Bad(name, std::string(translated.status().message()));
    return AddSplitter(*translated, name);
  }

  absl::Status AddSplitter(const std::string& pattern, const std::string& name) {
    absl::StatusOr<Splitter> splitter = Splitter::Compile(pattern);
    if (!splitter.ok()) return Bad(name, std::string(splitter.status().message()));
    spec_.splitters.push_back(*std::move(splitter));
    return absl::OkStatus();
  }

  // These add special tokens, which Encode never does, and trim offsets, which it does not report.
  absl::Status PostProcessor(const Object& file) {
    const Json* value = file.Find("post_processor");
    return value == nullptr ? absl::OkStatus() : PostProcessorStep(*value, "post_processor", 0);
  }

  static absl::Status PostProcessorStep(const Json& value, const std::string& name, int depth) {
    constexpr int kMostDepth = 8;
    absl::StatusOr<std::string> type = Type(value, name);
    if (!type.ok()) return type.status();
    if (*type == "ByteLevel" || *type == "TemplateProcessing") return absl::OkStatus();
    if (*type == "Sequence" && depth < kMostDepth) {
      return ForEach(*Object::From(value, name), "processors",
                     [&](const Json& inner, const std::string& inner_name) {
                       return PostProcessorStep(inner, inner_name, depth + 1);
                     });
    }
    return UnsupportedType(name, *type);
  }

  absl::Status Decoder(const Object& file) {
    absl::StatusOr<const Json*> value = file.Require("decoder");
    if (!value.ok()) return value.status();
    absl::StatusOr<std::string> type = Type(**value, "decoder");
    if (!type.ok()) return type.status();
    return *type == "ByteLevel" ? absl::OkStatus() : UnsupportedType("decoder", *type);
  }

  TokenizerSpec spec_;
  absl::flat_hash_map<std::string, TokenId> ids_;  // the vocabulary's
  bool byte_level_ = false;
};

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(const std::string& text) {
  // The keys so far of each object that is open: a key given twice would silently lose its first
  // value.
  std::vector<absl::flat_hash_set<std::string>> open;
  std::string duplicate;
  const auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) {
      open.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!open.back().insert(key).second && duplicate.empty()) duplicate = QuoteJson(key);
    }
    return true;
  };
  Json root;
  try {
    root = Json::parse(text, watch);
  } catch (const Json::parse_error& error) {
    // Not what(), which holds a broken string to its end.
    return absl::InvalidArgumentError(absl::StrCat("not JSON: wrong at byte ", error.byte));
  } catch (const Json::exception&) {
    return absl::InvalidArgumentError("not JSON: a number is out of range");
  }
  if (!duplicate.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("the key ", duplicate, " is given twice in one object"));
  return Parser().Run(root);
}

}  // namespace epo
