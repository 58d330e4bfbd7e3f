// A report's figures as files of their own.
#ifndef EPO_CLIENT_REPORT_DRAW_H_
#define EPO_CLIENT_REPORT_DRAW_H_

#include <absl/status/statusor.h>

#include <string>

namespace epo::report {

// The figure `name` of figures.js as a standalone SVG, drawn by Vega. `data` is the report's, as
// JSON; the title stands above the figure, and the subtitle, which may be empty, under the title.
// INTERNAL where Vega fails, with its message. Takes half a second of one core. Safe from any
// thread.
absl::StatusOr<std::string> DrawSvg(const std::string& name, const std::string& data,
                                    const std::string& title, const std::string& subtitle);

// The SVG as a PNG of twice its size, by Debian's rsvg-convert. FAILED_PRECONDITION where that is
// not installed; INTERNAL, with what it wrote to stderr, where it fails.
absl::StatusOr<std::string> ToPng(const std::string& svg);

}  // namespace epo::report

#endif  // EPO_CLIENT_REPORT_DRAW_H_
