// Text from a server made safe and measurable for a terminal. Pure functions, safe from any thread.
#ifndef EPO_CLIENT_CLI_TEXT_H_
#define EPO_CLIENT_CLI_TEXT_H_

#include <string>
#include <string_view>

namespace epo::cli {

// The text with everything that could steer a terminal or hide from the eye written as an escape:
// \n, \t, \\, \xNN for control characters and bytes that are not UTF-8, \u{N} for bidi controls,
// other invisible format characters, separators, private-use and unassigned code points, and a
// combining mark with nothing to combine with. The result is valid UTF-8 of one line.
std::string Escape(std::string_view text);

// Escape() between double quotes, with the double quotes inside escaped as well.
std::string Quote(std::string_view text);

// A JSON text with the characters that Escape() would not let through raw written as \\uNNNN, which
// means the same to a JSON reader.
std::string EscapeJson(std::string_view json);

// Columns that a terminal gives an escaped text (wide characters take two, combining marks none).
int DisplayWidth(std::string_view text);

// The longest start of an escaped text that takes at most `width` columns; a shortened text ends in
// "…". Never splits an escape's backslash from its letters' first one, nor a character from its
// combining marks.
std::string Clip(std::string_view text, int width);

// The text and as many spaces as bring it to `width` columns, behind it or before it.
std::string PadRight(std::string_view text, int width);
std::string PadLeft(std::string_view text, int width);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_TEXT_H_
