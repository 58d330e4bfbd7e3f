// A frontier as a small plot of characters. Pure functions.
#ifndef EPO_CLIENT_CLI_FRONTIER_PLOT_H_
#define EPO_CLIENT_CLI_FRONTIER_PLOT_H_

#include <string>
#include <vector>

#include "epo/v1/frontier.pb.h"

namespace epo::cli {

// Lines of a plot: the canvas, and below it the ends of its cross-entropies.
inline constexpr int kPlotLines = 7;
// Columns that a plot needs for its labels and a canvas worth looking at.
inline constexpr int kLeastPlotWidth = 50;

// Cross-entropy from left to right against target from below to above, one dot a point, in
// kPlotLines lines of at most `width` columns, labelled with the ends of both. `utf8`: dots of
// Braille characters, eight to a column; else asterisks. Points without a finite target and
// cross-entropy are left out; nothing where fewer than two are left, or `width` is below
// kLeastPlotWidth.
std::vector<std::string> FrontierPlotLines(const v1::Frontier& frontier, int width, bool utf8,
                                           bool color);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_FRONTIER_PLOT_H_
