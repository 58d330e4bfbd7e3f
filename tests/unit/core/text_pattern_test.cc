#include "core/model/text_pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace epo {
namespace {

bool Matches(const TextPattern& pattern, std::string_view text) {
  const auto match = pattern.Find(text, 10'000);
  EXPECT_TRUE(match.ok()) << match.status();
  return match.ok() && match->has_value();
}

TEST(TextPatternTest, FindsTextsInAnyCase) {
  const auto pattern = TextPattern::AnyCase("pAris (É)");
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  const auto match = pattern->Find("über PARIS (é)!");
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->begin, 6U);
  EXPECT_EQ(match->end, 16U);
  // A text is no expression.
  EXPECT_FALSE(pattern->Find("paris é"));
  EXPECT_FALSE(TextPattern::AnyCase(".")->Find("x"));
  EXPECT_FALSE(TextPattern::AnyCase("\xff").ok());
}

TEST(TextPatternTest, KnowsCharactersNotBytes) {
  const auto dots = TextPattern::Regex("^..$");
  ASSERT_TRUE(dots.ok());
  EXPECT_TRUE(Matches(*dots, "日本"));
  EXPECT_FALSE(Matches(*dots, "日"));
  EXPECT_TRUE(Matches(*TextPattern::Regex(R"(^\w+$)"), "Größe"));
}

TEST(TextPatternTest, SaysWhatIsWrongAndWhere) {
  for (const auto& [pattern, message] :
       {std::pair("ab(c", "missing closing parenthesis, at byte 4"),
        std::pair("x[", "missing terminating ] for character class, at byte 2"),
        std::pair("*", "quantifier does not follow a repeatable item, at byte 0"),
        std::pair("\xff", "UTF-8 error"), std::pair("((a{1000}){1000}){1000}", "too large")}) {
    const auto regex = TextPattern::Regex(pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_NE(std::string(regex.status().message()).find(message), std::string::npos)
        << regex.status();
  }
}

TEST(TextPatternTest, GivesUpInsteadOfHanging) {
  const std::string text = std::string(60, 'a') + "!";
  for (const char* hostile : {"(a+)+$", "(a|a)*$", "(a|aa)+$", "(?:(?:a*)*)*b|c"}) {
    const auto pattern = TextPattern::Regex(hostile);
    ASSERT_TRUE(pattern.ok()) << pattern.status();
    EXPECT_EQ(pattern->Find(text, 20'000).status().code(), absl::StatusCode::kResourceExhausted)
        << hostile;
  }
}

}  // namespace
}  // namespace epo
