#include "client/cli/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParseIdsTest, TakesCommasSpacesAndBrackets) {
  for (const char* text : {"1,2,3", " 1, 2, 3 ", "[1,2,3]", "1 2 3"}) {
    const auto ids = ParseIds(text);
    ASSERT_TRUE(ids.ok()) << text;
    EXPECT_THAT(ids->ids(), ElementsAre(1, 2, 3)) << text;
  }
}

TEST(ParseIdsTest, NamesWhatIsNoId) {
  for (const char* text : {"1,x", "x", "1,x,3"}) {
    EXPECT_THAT(std::string(ParseIds(text).status().message()), HasSubstr("'x'")) << text;
  }
  for (const char* text : {"", "[]", ",", "3000000000", "1.5"}) {
    EXPECT_FALSE(ParseIds(text).ok()) << text;
  }
}

TEST(ParsePositionsTest, PositionsAndRanges) {
  EXPECT_THAT(*ParsePositions("0,3-5, 2"), ElementsAre(0, 3, 4, 5, 2));
  EXPECT_THAT(*ParsePositions("7-7"), ElementsAre(7));
  for (const char* text : {"", "x", "1,", "-1", "3-", "5-3", "1-2-3", "0-2000000000"}) {
    EXPECT_FALSE(ParsePositions(text).ok()) << text;
  }
  EXPECT_THAT(std::string(ParsePositions("1,5-3").status().message()), HasSubstr("'5-3'"));
}

TEST(ParsePenaltyRangeTest, NumberOrRange) {
  EXPECT_EQ(ParsePenaltyRange("2.0")->low(), 2);
  EXPECT_EQ(ParsePenaltyRange("2.0")->high(), 2);
  EXPECT_EQ(ParsePenaltyRange("0.5:6")->low(), 0.5);
  EXPECT_EQ(ParsePenaltyRange("0.5:6")->high(), 6);
  for (const char* text : {"", "a", "1:", ":1", "1:2:3", "1-2"}) {
    EXPECT_FALSE(ParsePenaltyRange(text).ok()) << text;
  }
}

TEST(ParseDeadlineTest, TimesAndDurations) {
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  EXPECT_EQ(*ParseDeadline("2023-11-14T23:13:20Z", now), now + absl::Hours(1));
  EXPECT_EQ(*ParseDeadline("2023-11-15T00:13:20.5+01:00", now),
            now + absl::Hours(1) + absl::Milliseconds(500));
  EXPECT_EQ(*ParseDeadline("2h", now), now + absl::Hours(2));
  EXPECT_EQ(*ParseDeadline("1h30m", now), now + absl::Minutes(90));
  EXPECT_EQ(*ParseDeadline("45s", now), now + absl::Seconds(45));
  EXPECT_EQ(*ParseDeadline("3d", now), now + absl::Hours(72));
  EXPECT_EQ(*ParseDeadline("1d12h", now), now + absl::Hours(36));
  for (const char* text : {"", "2", "soon", "-2h", "0s", "d", "2hd", "1d2", "2023-11-14", "inf",
                           "infinite-future", "2023-11-14T23:13:20"}) {
    const auto deadline = ParseDeadline(text, now);
    EXPECT_FALSE(deadline.ok()) << text;
    EXPECT_THAT(std::string(deadline.status().message()), HasSubstr("'" + std::string(text) + "'"));
  }
}

// Prompts as `epo score` would read them.
std::vector<std::string> Collect(std::vector<std::string> arguments) {
  CLI::App app;
  CLI::App* score = app.add_subcommand("score");
  score->fallthrough();
  app.add_subcommand("list");
  app.require_subcommand(1);
  const auto* ids = AddPromptOption(score, "--ids", "");
  const auto* text = AddPromptOption(score, "TEXT", "");
  Protect(arguments);
  std::reverse(arguments.begin(), arguments.end());
  app.parse(std::move(arguments));
  std::vector<std::string> prompts;
  for (const auto& argument : CollectPrompts(score, text, ids)) {
    std::string shown = argument.flag;
    for (const int id : argument.prompt.ids().ids()) shown += " " + std::to_string(id);
    prompts.push_back(argument.prompt.has_text() ? argument.prompt.text() : shown);
  }
  return prompts;
}

TEST(CollectPromptsTest, KeepsTheOrderOfTheCommandLine) {
  EXPECT_THAT(Collect({"score", "a", "--ids", "1,2", "b", "--ids=[3]", "c d"}),
              ElementsAre("a", "--ids 1 2", "b", "--ids 3", "c d"));
}

TEST(CollectPromptsTest, TextsAreTakenAsTheyStand) {
  EXPECT_THAT(Collect({"score", "[a, b]", "{}", "list", "", "-", "--", "-x", "--", "[-]", "--ids"}),
              ElementsAre("[a, b]", "{}", "list", "", "-", "-x", "--", "[-]", "--ids"));
}

TEST(CollectPromptsTest, BadIdsAreAUsageError) {
  EXPECT_THROW(Collect({"score", "--ids", "x"}), CLI::ValidationError);
}

template <typename T>
std::string Validate(const CLI::Validator& validator, std::string text, T* value) {
  CLI::App app;
  app.add_option("--x", *value)->transform(validator);
  try {
    app.parse({text, "--x"});
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "";
}

TEST(ValidatorsTest, SayWhatIsWanted) {
  int32_t number = 0;
  EXPECT_EQ(Validate(Int32(), "010", &number), "");
  EXPECT_EQ(number, 10);
  EXPECT_EQ(Validate(Int32(), "-3", &number), "");
  EXPECT_EQ(number, -3);
  EXPECT_THAT(Validate(Int32(), "1e3", &number), HasSubstr("'1e3' is no whole number"));
  EXPECT_THAT(Validate(Int32(), "2147483648", &number), HasSubstr("below 2^31"));
  EXPECT_THAT(Validate(Int32(1), "0", &number), HasSubstr("0 is less than 1"));
  uint64_t seed = 0;
  EXPECT_EQ(Validate(Uint64(), "18446744073709551615", &seed), "");
  EXPECT_EQ(seed, std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(Validate(Uint64(), "-1", &seed), HasSubstr("'-1'"));
  double penalty = 0;
  EXPECT_EQ(Validate(Number(), "1e-3", &penalty), "");
  EXPECT_EQ(penalty, 1e-3);
  EXPECT_EQ(Validate(Number(), "nan", &penalty), "");
  EXPECT_THAT(Validate(Number(), "x", &penalty), HasSubstr("'x' is no number"));
}

}  // namespace
}  // namespace epo::cli
