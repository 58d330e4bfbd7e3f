#include "client/cli/text.h"

#include <gtest/gtest.h>

namespace epo::cli {
namespace {

TEST(EscapeTest, PlainTextOfManyScriptsPasses) {
  for (const char* text : {"The capital", "שלום עולם", "مرحبا", "日本語", "naïve", "👍", "หวัดดี"}) {
    EXPECT_EQ(Escape(text), text);
  }
}

TEST(EscapeTest, ControlCharactersAreShown) {
  EXPECT_EQ(Escape("a\nb\tc\rd"), "a\\nb\\tc\\rd");
  EXPECT_EQ(Escape("\x1b[31m\x07"), "\\x1b[31m\\x07");
  EXPECT_EQ(Escape(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(Escape("\x7f"), "\\x7f");
  // U+009B is a one-character CSI.
  EXPECT_EQ(Escape("\xc2\x9b"
                   "2J"),
            "\\x9b2J");
}

TEST(EscapeTest, BackslashIsDoubledSoThatEscapesAreUnambiguous) {
  EXPECT_EQ(Escape("\\n"), "\\\\n");
}

TEST(EscapeTest, BidiControlsAndInvisiblesAreShown) {
  EXPECT_EQ(Escape("a\u202eb"), "a\\u{202e}b");
  EXPECT_EQ(Escape("\u2066x\u2069"), "\\u{2066}x\\u{2069}");
  EXPECT_EQ(Escape("\u200f\u061c"), "\\u{200f}\\u{61c}");
  EXPECT_EQ(Escape("a\u200bb\ufeff"), "a\\u{200b}b\\u{feff}");
  EXPECT_EQ(Escape("\u2028\u2029"), "\\u{2028}\\u{2029}");
  EXPECT_EQ(Escape("\U000e0041"), "\\u{e0041}");
  EXPECT_EQ(Escape("\ue000"), "\\u{e000}");
}

TEST(EscapeTest, InvalidUtf8IsShownByteByByte) {
  EXPECT_EQ(Escape("a\xff\xc3z"), "a\\xff\\xc3z");
  EXPECT_EQ(Escape("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(Escape("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // surrogate
  EXPECT_EQ(Escape("\xe2\x82"), "\\xe2\\x82");           // cut off
  EXPECT_EQ(Escape("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(Escape("\ufffd"), "\ufffd");
}

TEST(EscapeTest, CombiningMarksNeedABaseAndDoNotPileUp) {
  EXPECT_EQ(Escape("e\u0301"), "e\u0301");
  EXPECT_EQ(Escape("\u0301"), "\\u{301}");
  EXPECT_EQ(Escape("\n\u0301"), "\\n\\u{301}");
  EXPECT_EQ(Escape("e\u0301\u0301\u0301\u0301"), "e\u0301\u0301\u0301\\u{301}");
}

TEST(QuoteTest, QuotesInsideAreEscaped) {
  EXPECT_EQ(Quote("say \"hi\" \n"), "\"say \\\"hi\\\" \\n\"");
}

TEST(EscapeJsonTest, SteeringCharactersBecomeJsonEscapes) {
  EXPECT_EQ(EscapeJson("\"a\u202eb\xc2\x9b\U000e0041é\""), "\"a\\u202eb\\u009b\\udb40\\udc41é\"");
}

TEST(DisplayWidthTest, CountsColumns) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("日本"), 4);
  EXPECT_EQ(DisplayWidth("e\u0301"), 1);
  EXPECT_EQ(DisplayWidth("שלום"), 4);
  EXPECT_EQ(DisplayWidth("👍"), 2);
  EXPECT_EQ(DisplayWidth("❤\ufe0f"), 2);
  EXPECT_EQ(DisplayWidth("\\x1b"), 4);
  EXPECT_EQ(DisplayWidth(""), 0);
}

TEST(ClipTest, NeverWiderThanAsked) {
  const std::string text = "a日本\\n語e\u0301👍z";
  for (int width = 0; width < 16; ++width) {
    EXPECT_LE(DisplayWidth(Clip(text, width)), width) << width;
  }
  EXPECT_EQ(Clip(text, 20), text);
  EXPECT_EQ(Clip("abcdef", 4), "abc…");
  EXPECT_EQ(Clip("日本語", 4), "日…");
  EXPECT_EQ(Clip("a\\nb", 3), "a…");
  EXPECT_EQ(Clip("e\u0301fg", 2), "e\u0301…");
  EXPECT_EQ(Clip("abc", 0), "");
}

TEST(PadTest, PadsByColumns) {
  EXPECT_EQ(PadRight("日", 4) + "|", "日  |");
  EXPECT_EQ(PadLeft("é", 3), "  é");
  EXPECT_EQ(PadLeft("long", 2), "long");
}

}  // namespace
}  // namespace epo::cli
