#include "core/model/tokenizer.h"

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/model/byte_level.h"
#include "core/model/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Ids 0 to 255 are the bytes; then, in this order: "aa" 256, "aaaa" 257, " t" 258, "he" 259, " the"
// 260, "12" 261.
Json SmallTokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[ByteLevelCharacter(static_cast<uint8_t>(byte))] = byte;
  }
  const std::string space = ByteLevelCharacter(' ');
  int id = 256;
  for (const std::string& token : {std::string("aa"), std::string("aaaa"), space + "t",
                                   std::string("he"), space + "the", std::string("12")}) {
    vocab[token] = id++;
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocab},
            {"merges", {"a a", {"aa", "aa"}, space + " t", "h e", {space + "t", "he"}, "1 2"}}}}};
}

Json Added(int id, const std::string& content, bool special, bool normalized) {
  return {{"id", id},        {"content", content},       {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", special}};
}

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(::testing::TempDir()) /
                 ("tokenizer_test_" + std::to_string(getpid()));
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path Path() const { return directory_ / "tokenizer.json"; }

  absl::StatusOr<std::unique_ptr<Tokenizer>> LoadText(const std::string& text) const {
    std::ofstream(Path(), std::ios::binary) << text;
    return Tokenizer::Load(Path());
  }

  std::unique_ptr<Tokenizer> Load(const Json& json) const {
    auto tokenizer = LoadText(json.dump());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
  }

 private:
  std::filesystem::path directory_;
};

TEST_F(TokenizerTest, MergesByRankWithinWords) {
  const auto tokenizer = Load(SmallTokenizer());
  EXPECT_THAT(tokenizer->Encode("aaa the"), ElementsAre(256, 'a', 260));
  EXPECT_THAT(tokenizer->Encode("aaaaa"), ElementsAre(257, 'a'));
  EXPECT_THAT(tokenizer->Encode(""), ElementsAre());
  // The last space of a run goes with the word behind it.
  EXPECT_THAT(tokenizer->Encode("  the"), ElementsAre(' ', 260));
  EXPECT_EQ(tokenizer->vocab_size(), 262);
}

TEST_F(TokenizerTest, SplitsDigitsOneByOneOrInRuns) {
  Json json = SmallTokenizer();
  EXPECT_THAT(Load(json)->Encode("12"), ElementsAre(261));
  const Json byte_level = json["pre_tokenizer"];
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level}}};
  EXPECT_THAT(Load(json)->Encode("12"), ElementsAre('1', '2'));
  json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
  EXPECT_THAT(Load(json)->Encode("12"), ElementsAre(261));
}

TEST_F(TokenizerTest, WithoutRegexTheTextIsOneWord) {
  Json json = SmallTokenizer();
  EXPECT_THAT(Load(json)->Encode("h e12"), ElementsAre('h', ' ', 'e', 261));
  const std::string space = ByteLevelCharacter(' ');
  json["model"]["vocab"]["h" + space] = 262;
  json["model"]["merges"].push_back("h " + space);
  EXPECT_THAT(Load(json)->Encode("h e"), ElementsAre('h', ' ', 'e'));
  json["pre_tokenizer"]["use_regex"] = false;
  EXPECT_THAT(Load(json)->Encode("h e"), ElementsAre(262, 'e'));
}

TEST_F(TokenizerTest, IgnoreMergesTakesWholeWords) {
  Json json = SmallTokenizer();
  json["model"]["vocab"]["hea"] = 262;
  EXPECT_THAT(Load(json)->Encode("hea"), ElementsAre(259, 'a'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(Load(json)->Encode("hea"), ElementsAre(262));
  EXPECT_THAT(Load(json)->Encode("heaa"), ElementsAre(259, 256));
}

TEST_F(TokenizerTest, FindsTheLongestAddedTokenUnnormalizedFirst) {
  Json json = SmallTokenizer();
  json["added_tokens"] =
      Json::array({Added(262, "<x>", true, false), Added(263, "  ", false, true),
                   Added(264, "   ", false, true), Added(265, " <", false, true)});
  const auto tokenizer = Load(json);
  EXPECT_THAT(tokenizer->Encode("a     <x>"), ElementsAre('a', 264, 263, 262));
  EXPECT_THAT(tokenizer->Encode(" <x"), ElementsAre(265, 'x'));
  EXPECT_THAT(tokenizer->Encode(" <x>"), ElementsAre(' ', 262));
  EXPECT_TRUE(tokenizer->IsSpecial(262));
  EXPECT_FALSE(tokenizer->IsSpecial(263));
  EXPECT_FALSE(tokenizer->IsSpecial(97));
  EXPECT_EQ(tokenizer->DecodeBytes({262, 264, 97}), "<x>   a");
  EXPECT_EQ(tokenizer->vocab_size(), 266);
}

TEST_F(TokenizerTest, StrippingTokensTakeTheSpaceBesideThem) {
  Json json = SmallTokenizer();
  json["added_tokens"] =
      Json::array({Added(262, "<l>", false, false), Added(263, "<r>", false, false)});
  json["added_tokens"][0]["lstrip"] = true;
  json["added_tokens"][1]["rstrip"] = true;
  // U+3000 is white space too.
  EXPECT_THAT(Load(json)->Encode("a \xE3\x80\x80\n<l> a<r>\t a"),
              ElementsAre('a', 262, ' ', 'a', 263, 'a'));
}

TEST_F(TokenizerTest, BytesWithoutATokenBecomeUnknownOrNothing) {
  Json json = SmallTokenizer();
  json["model"]["vocab"].erase("x");
  EXPECT_THAT(Load(json)->Encode("axxa"), ElementsAre(256));
  json["model"]["unk_token"] = "!";
  EXPECT_THAT(Load(json)->Encode("axxa"), ElementsAre('a', '!', '!', 'a'));
  json["model"]["fuse_unk"] = true;
  EXPECT_THAT(Load(json)->Encode("axxa"), ElementsAre('a', '!', 'a'));
}

TEST_F(TokenizerTest, InvalidUtf8IsEncodedAsReplacementCharacters) {
  const auto tokenizer = Load(SmallTokenizer());
  EXPECT_THAT(tokenizer->Encode("a\xF0\x9F\x98z"), ElementsAre('a', 0xEF, 0xBF, 0xBD, 'z'));
}

TEST_F(TokenizerTest, DecodesAnyIds) {
  Json json = SmallTokenizer();
  json["model"]["vocab"]["hole"] = 300;
  const auto tokenizer = Load(json);
  const Prompt ids = {-1, 'a', 299, 301, INT32_MAX, INT32_MIN, 0xE2, 0x82, 'b', 300};
  EXPECT_EQ(tokenizer->DecodeBytes(ids),
            "a\xE2\x82"
            "bhole");
  EXPECT_EQ(tokenizer->Decode(ids), "a" + std::string(kReplacement) + "bhole");
  EXPECT_FALSE(tokenizer->IsToken(299));
  EXPECT_FALSE(tokenizer->IsToken(-1));
  EXPECT_TRUE(tokenizer->IsToken(300));
  EXPECT_EQ(tokenizer->TokenBytes(299), "");
}

TEST_F(TokenizerTest, LongWordsTakeNearlyLinearTime) {
  const auto tokenizer = Load(SmallTokenizer());
  const auto start = std::chrono::steady_clock::now();
  constexpr size_t kSize = 4 << 20;
  EXPECT_EQ(tokenizer->Encode(std::string(kSize, 'a')), Prompt(kSize / 4, 257));
  EXPECT_EQ(tokenizer->Encode(std::string(kSize, ' ')), Prompt(kSize, ' '));
  // Quadratic time would be hours.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(1));
}

TEST_F(TokenizerTest, ThreadsShareOne) {
  const auto tokenizer = Load(SmallTokenizer());
  const std::string text(10'000, 'a');
  std::vector<Prompt> results(8);
  std::vector<std::thread> threads;
  for (Prompt& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) result = tokenizer->Encode(text + " the 12");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Prompt& result : results) EXPECT_EQ(result, results[0]);
  EXPECT_EQ(results[0].size(), 2500 + 3);
}

TEST_F(TokenizerTest, RandomBytesComeBackAsTheirReplacedText) {
  Json json = SmallTokenizer();
  json["added_tokens"] =
      Json::array({Added(262, "<x>", true, false), Added(263, "  ", false, true)});
  const auto tokenizer = Load(json);
  std::mt19937 random(0);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (auto pieces = random() % 20; pieces > 0; --pieces) {
      text += random() % 4 == 0 ? "  <x>" : std::string(1, static_cast<char>(random()));
    }
    EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode(text)), ReplaceInvalidUtf8(text));
  }
}

TEST_F(TokenizerTest, DamagedFilesAreRefusedOrLoadWithoutACrash) {
  Json json = SmallTokenizer();
  json["added_tokens"] = Json::array({Added(262, "<x>", true, false)});
  const std::string text = json.dump();
  std::mt19937 random(0);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = text;
    switch (random() % 3) {
      case 0:
        damaged.resize(random() % text.size());
        break;
      case 1:
        damaged[random() % text.size()] = static_cast<char>(random());
        break;
      default:
        damaged.erase(random() % text.size(), random() % 30);
    }
    const auto tokenizer = LoadText(damaged);
    if (tokenizer.ok()) {
      (*tokenizer)->Encode("aaa the 12 <x> \xFF");
    } else {
      EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(Path().string()));
    }
  }
}

TEST_F(TokenizerTest, NamesTheFile) {
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load(Path()).status()));
  std::filesystem::create_directory(Path());
  const absl::Status status = Tokenizer::Load(Path()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path().string() + ": not a regular file"));
}

TEST_F(TokenizerTest, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "[]", "3", "\xFF", "{\"version\": \"1.0\" \"x\"}"}) {
    const absl::Status status = LoadText(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(Path().string()));
  }
  // Through a parser that keeps the last of them, this would pass.
  std::string twice = SmallTokenizer().dump();
  twice.insert(twice.find("\"aa\":"), "\"aa\":256,");
  EXPECT_THAT(std::string(LoadText(twice).status().message()),
              HasSubstr("the key \"aa\" is given twice"));
}

struct Refusal {
  std::string name;
  std::function<void(Json&)> change;
  std::string message;  // after the file's name
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

// Sets what a JSON pointer points at.
std::function<void(Json&)> Set(const std::string& pointer, const Json& value) {
  return [=](Json& json) { json[Json::json_pointer(pointer)] = value; };
}

std::function<void(Json&)> Erase(const std::string& object, const std::string& key) {
  return [=](Json& json) { json[Json::json_pointer(object)].erase(key); };
}

std::function<void(Json&)> Split(const std::string& regex) {
  return Set("/pre_tokenizer",
             {{"type", "Sequence"},
              {"pretokenizers",
               {{{"type", "Split"},
                 {"pattern", {{"Regex", regex}}},
                 {"behavior", "Isolated"},
                 {"invert", false}},
                {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}});
}

std::function<void(Json&)> SplitWith(const std::string& key, const Json& value) {
  return [=](Json& json) {
    Split("a")(json);
    json["pre_tokenizer"]["pretokenizers"][0][key] = value;
  };
}

class TokenizerRefusalTest : public TokenizerTest, public ::testing::WithParamInterface<Refusal> {};

TEST_P(TokenizerRefusalTest, NamesTheFileAndTheKey) {
  Json json = SmallTokenizer();
  json["added_tokens"] = Json::array({Added(262, "<x>", true, false)});
  ASSERT_NE(Load(json), nullptr);
  GetParam().change(json);
  const absl::Status status = LoadText(json.dump()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(status.message(), Path().string() + ": " + GetParam().message);
}

constexpr char kRegexKey[] = "pre_tokenizer.pretokenizers[0].pattern.Regex: ";

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerRefusalTest,
    ::testing::Values(
        Refusal{"Version", Set("/version", "2.0"), "version: \"2.0\" is not supported"},
        Refusal{"UnknownKey", Set("/extra", 1), "\"extra\": is not supported"},
        Refusal{"Truncation", Set("/truncation", {{"max_length", 8}}),
                "truncation: object is not supported, only null"},
        Refusal{"Padding", Set("/padding", {{"strategy", "Fixed"}}),
                "padding: object is not supported, only null"},
        Refusal{"Normalizer", Set("/normalizer", {{"type", "NFC"}}),
                "normalizer: \"NFC\" is not supported, only null"},
        Refusal{"NoModel", Erase("", "model"), "model: is missing"},
        Refusal{"ModelNoObject", Set("/model", 3), "model: expected an object, got 3"},
        Refusal{"ModelType", Set("/model/type", "Unigram"),
                "model.type: \"Unigram\" is not supported"},
        Refusal{"ModelKey", Set("/model/new", 1), "model.\"new\": is not supported"},
        Refusal{"Dropout", Set("/model/dropout", 0.1), "model.dropout: 0.1 is not supported"},
        Refusal{"Prefix", Set("/model/continuing_subword_prefix", "##"),
                "model.continuing_subword_prefix: \"##\" is not supported"},
        Refusal{"Suffix", Set("/model/end_of_word_suffix", "</w>"),
                "model.end_of_word_suffix: \"</w>\" is not supported"},
        Refusal{"ByteFallback", Set("/model/byte_fallback", true),
                "model.byte_fallback: true is not supported"},
        Refusal{"FuseUnk", Set("/model/fuse_unk", "yes"),
                "model.fuse_unk: expected true or false, got \"yes\""},
        Refusal{"UnkToken", Set("/model/unk_token", "<unk>"),
                "model.unk_token: \"<unk>\" is not in model.vocab"},
        Refusal{"NoVocab", Erase("/model", "vocab"), "model.vocab: is missing"},
        Refusal{"VocabArray", Set("/model/vocab", Json::array()),
                "model.vocab: expected an object, got []"},
        Refusal{"VocabEmpty", Set("/model/vocab", Json::object()), "model.vocab: has no token"},
        Refusal{"NegativeId", Set("/model/vocab/aa", -1),
                "model.vocab[\"aa\"]: expected an id from 0 to 2097151, got -1"},
        Refusal{"HugeId", Set("/model/vocab/aa", 1 << 21),
                "model.vocab[\"aa\"]: expected an id from 0 to 2097151, got 2097152"},
        Refusal{"FractionId", Set("/model/vocab/aa", 1.5),
                "model.vocab[\"aa\"]: expected an id from 0 to 2097151, got 1.5"},
        Refusal{"SameId", Set("/model/vocab/aaaa", 256),
                "model.vocab[\"aaaa\"]: id 256 is also that of \"aa\""},
        Refusal{"NoMerges", Erase("/model", "merges"), "model.merges: is missing"},
        Refusal{"MergesObject", Set("/model/merges", Json::object()),
                "model.merges: expected an array, got object"},
        Refusal{"MergeOfThree", Set("/model/merges/0", "a a a"),
                "model.merges[0]: expected \"a b\" or [\"a\", \"b\"], got \"a a a\""},
        Refusal{"MergeOfOne", Set("/model/merges/1", Json::array({"a"})),
                "model.merges[1]: expected \"a b\" or [\"a\", \"b\"], got [\"a\"]"},
        Refusal{"MergeUnknown", Set("/model/merges/1", "a q"),
                "model.merges[1]: \"aq\" is not in model.vocab"},
        Refusal{"MergeTwice", Set("/model/merges/3", "a a"),
                "model.merges[3]: \"a\" and \"a\" are merged before"},
        Refusal{"AddedObject", Set("/added_tokens", Json::object()),
                "added_tokens: expected an array, got object"},
        Refusal{"AddedSingleWord", Set("/added_tokens/0/single_word", true),
                "added_tokens[0].single_word: true is not supported"},
        Refusal{"AddedNoFlag", Erase("/added_tokens/0", "rstrip"),
                "added_tokens[0].rstrip: is missing"},
        Refusal{"AddedNoContent", Erase("/added_tokens/0", "content"),
                "added_tokens[0].content: is missing"},
        Refusal{"AddedEmpty", Set("/added_tokens/0/content", ""),
                "added_tokens[0].content: is empty"},
        Refusal{"AddedTwice", Set("/added_tokens/1", Added(263, "<x>", false, false)),
                "added_tokens[1].content: \"<x>\" is added before"},
        Refusal{"AddedHole", Set("/added_tokens/0/id", 263),
                "added_tokens[0].id: 263 contradicts 262, which is \"<x>\"'s by its place after "
                "model.vocab"},
        Refusal{"AddedContradicts", Set("/added_tokens/0/content", "aa"),
                "added_tokens[0].id: 262 contradicts 256, which is \"aa\"'s in model.vocab"},
        Refusal{"AddedClash",
                [](Json& json) {
                  json["model"]["vocab"].erase("x");
                  json["model"]["vocab"]["last"] = 262;
                },
                "added_tokens[0].id: 262 is also that of \"last\""},
        Refusal{"NoPreTokenizer", Set("/pre_tokenizer", nullptr), "pre_tokenizer: is missing"},
        Refusal{"PreTokenizerType", Set("/pre_tokenizer/type", "Metaspace"),
                "pre_tokenizer.type: \"Metaspace\" is not supported"},
        Refusal{"PrefixSpace", Set("/pre_tokenizer/add_prefix_space", true),
                "pre_tokenizer.add_prefix_space: true is not supported"},
        Refusal{"OnlyDigits",
                Set("/pre_tokenizer", {{"type", "Digits"}, {"individual_digits", true}}),
                "pre_tokenizer: one without ByteLevel is not supported"},
        Refusal{"DigitsLast",
                [](Json& json) {
                  json["pre_tokenizer"] = {
                      {"type", "Sequence"},
                      {"pretokenizers",
                       {json["pre_tokenizer"], {{"type", "Digits"}, {"individual_digits", true}}}}};
                },
                "pre_tokenizer.pretokenizers[1]: \"Digits\" after ByteLevel is not supported"},
        Refusal{"SplitBehavior", SplitWith("behavior", "Removed"),
                "pre_tokenizer.pretokenizers[0].behavior: \"Removed\" is not supported"},
        Refusal{"SplitInvert", SplitWith("invert", true),
                "pre_tokenizer.pretokenizers[0].invert: true is not supported"},
        Refusal{"SplitString", SplitWith("pattern", {{"String", " "}}),
                "pre_tokenizer.pretokenizers[0].pattern.\"String\": is not supported"},
        Refusal{"RegexLookbehind", Split("(?<=a)b"),
                std::string(kRegexKey) +
                    "the regular expression's group (?< is not supported"},
        Refusal{"RegexProperty", Split("\\p{Lu}"),
                std::string(kRegexKey) +
                    "the regular expression's escape \\p{Lu} is not supported"},
        Refusal{"RegexEscape", Split("a\\"),
                std::string(kRegexKey) + "the regular expression's escape \\ is not supported"},
        Refusal{"RegexDot", Split("a.b"),
                std::string(kRegexKey) + "the regular expression's . is not supported"},
        Refusal{"RegexNested", Split("(a+)+b"),
                std::string(kRegexKey) +
                    "the regular expression's repetition within a repetition is not supported"},
        Refusal{"RegexAlternatives", Split("(?:x(?:a|a))+b"),
                std::string(kRegexKey) +
                    "the regular expression's alternation within a repetition is not supported"},
        Refusal{"RegexLazy", Split("a+?"),
                std::string(kRegexKey) +
                    "the regular expression's quantifier ? here is not supported"},
        Refusal{"RegexBrace", Split("a{,3}"),
                std::string(kRegexKey) +
                    "the regular expression's brace { that counts nothing is not supported"},
        Refusal{"RegexSetRange", Split("[a-\\p{L}]"),
                std::string(kRegexKey) +
                    "the regular expression's range from or to a set in a class is not supported"},
        Refusal{"RegexOpenClass", Split("[a"),
                std::string(kRegexKey) + "the regular expression has an unmatched ["},
        Refusal{"RegexClose", Split("a)"),
                std::string(kRegexKey) + "the regular expression has an unmatched )"},
        Refusal{"RegexOpen", Split("(a"),
                std::string(kRegexKey) +
                    "the regular expression is malformed: missing closing parenthesis"},
        Refusal{"RegexEmptyMatch", Split("a*"),
                std::string(kRegexKey) +
                    "a regular expression that matches the empty string is not supported"},
        Refusal{"PostProcessor", Set("/post_processor", {{"type", "BertProcessing"}}),
                "post_processor.type: \"BertProcessing\" is not supported"},
        Refusal{"NoDecoder", Set("/decoder", nullptr), "decoder: is missing"},
        Refusal{"Decoder", Set("/decoder", {{"type", "Metaspace"}}),
                "decoder.type: \"Metaspace\" is not supported"}),
    [](const auto& info) { return info.param.name; });

TEST_F(TokenizerTest, AcceptsPostProcessorsThatOnlyAddSpecialTokens) {
  Json json = SmallTokenizer();
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}, {"trim_offsets", false}}, {{"type", "TemplateProcessing"}}}}};
  EXPECT_THAT(Load(json)->Encode("aa"), ElementsAre(256));
}

TEST(Utf8Test, ReplacesMaximalSubparts) {
  const std::string r(kReplacement);
  EXPECT_EQ(ReplaceInvalidUtf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
            "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), r);  // cut short
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98\xF0\x9F"), r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x28\xA1"), r + "(" + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), r + r);  // overlong
  EXPECT_EQ(ReplaceInvalidUtf8("\xE0\x80\x80"), r + r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), r + r + r + r);  // past U+10FFFF
  EXPECT_EQ(ReplaceInvalidUtf8("\xF5\xFF"), r + r);
  EXPECT_FALSE(IsValidUtf8("a\xED\xA0\x80"));
  EXPECT_TRUE(IsValidUtf8(std::string_view("a\0\xF4\x8F\xBF\xBF", 6)));
}

TEST(ByteLevelTest, SpellsBytesAndBack) {
  EXPECT_EQ(ByteLevelCharacter(' '), "\xC4\xA0");
  EXPECT_EQ(ByteLevelCharacter('a'), "a");
  std::string spelled;
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    spelled += ByteLevelCharacter(static_cast<uint8_t>(byte));
    bytes.push_back(static_cast<char>(byte));
  }
  EXPECT_TRUE(IsByteLevel(spelled));
  EXPECT_EQ(ByteLevelBytes(spelled), bytes);
  // One character outside the alphabet, and the token stands for itself.
  for (const char* token : {" a", "\xC4\xA0 ", "\xE2\x82\xAC\xC4\xA0", "\xC2\xAD", "\xC5\x84"}) {
    EXPECT_FALSE(IsByteLevel(token)) << token;
    EXPECT_EQ(ByteLevelBytes(token), token);
  }
}

}  // namespace
}  // namespace epo
