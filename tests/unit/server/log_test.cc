#include "server/log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace epo {
namespace {

std::string Line(LogFormat format, const std::string& message) {
  const auto formatter = MakeLogFormatter(format);
  spdlog::memory_buf_t line;
  formatter->format(spdlog::details::log_msg("epo", spdlog::level::warn, message), line);
  return {line.data(), line.size()};
}

TEST(Log, TextIsOneLineWithItsFieldsLast) {
  const LogScope scope({.job = "j1", .client = "ann", .traceparent = "00-a"});
  const std::string line = Line(LogFormat::kText, "job j1 runs");
  EXPECT_EQ(line.substr(line.find(' ')), " warning job j1 runs client=ann traceparent=00-a\n");
}

TEST(Log, TextEscapesWhatWouldBreakTheLineOrTheTerminal) {
  const LogScope scope({.client = "a\nb"});
  const std::string line =
      Line(LogFormat::kText, "\x1b[2J\r\n\tcaf\xc3\xa9 \xc2\x9b \x7f \xc2\xa0");
  EXPECT_EQ(line.substr(line.find(' ')),
            " warning \\x1b[2J\\r\\n\\tcaf\xc3\xa9 \\x9b \\x7f \xc2\xa0 client=a\\nb\n");
}

TEST(Log, JsonHasTheFieldsThatAreSet) {
  const LogScope call({.client = "ann", .traceparent = "00-a"});
  {
    const LogScope job({.job = "j1"});
    const auto event = nlohmann::json::parse(Line(LogFormat::kJson, "runs"));
    EXPECT_EQ(event["message"], "runs");
    EXPECT_EQ(event["level"], "warning");
    EXPECT_EQ(event["job"], "j1");
    EXPECT_EQ(event["client"], "ann");
    EXPECT_EQ(event["traceparent"], "00-a");
  }
  EXPECT_FALSE(nlohmann::json::parse(Line(LogFormat::kJson, "runs")).contains("job"));
}

TEST(Log, AnInnerScopeHidesTheOuterOneAndGivesItBack) {
  const LogScope outer({.job = "j1", .client = "ann"});
  {
    const LogScope inner({.job = "j2"});
    EXPECT_EQ(LogScope::Current().job, "j2");
    EXPECT_EQ(LogScope::Current().client, "ann");
  }
  EXPECT_EQ(LogScope::Current().job, "j1");
}

TEST(Log, JsonIsValidWhateverTheContent) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const LogScope scope({.job = all, .client = all, .traceparent = all});
  const std::string line = Line(LogFormat::kJson, all + "\n" + all);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto event = nlohmann::json::parse(line);
  EXPECT_EQ(event["client"].get<std::string>().substr(0, 0x80), all.substr(0, 0x80));
}

TEST(Log, TraceparentsAreChecked) {
  const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_EQ(ValidTraceparent(good), good);
  EXPECT_EQ(ValidTraceparent("cc" + good.substr(2) + "-what.the.future.brings"),
            "cc" + good.substr(2) + "-what.the.future.brings");
  for (const std::string& bad :
       {std::string(), good.substr(0, 54), good + "-00", good + "0", "ff" + good.substr(2),
        "cc" + good.substr(2) + "x", "00_" + good.substr(3),
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01" + std::string(),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01" + std::string(),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01" + std::string(),
        "cc" + good.substr(2) + "-" + std::string(1000, 'x')}) {
    EXPECT_EQ(ValidTraceparent(bad), "") << bad;
  }
}

}  // namespace
}  // namespace epo
