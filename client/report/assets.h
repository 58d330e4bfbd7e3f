// What a report's page and figures are made of, as it lies in the program. Pure functions.
#ifndef EPO_CLIENT_REPORT_ASSETS_H_
#define EPO_CLIENT_REPORT_ASSETS_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace epo::report {

// A file under client/report, or Vega ("vega.js"), compressed by zlib.
struct PackedAsset {
  std::string_view name;
  const unsigned char* data;
  size_t packed_size;
  size_t size;
};

// Generated when the program is built: see make_assets.py.
std::span<const PackedAsset> PackedAssets();

// The content of the asset, which must be one.
std::string Asset(std::string_view name);

}  // namespace epo::report

#endif  // EPO_CLIENT_REPORT_ASSETS_H_
