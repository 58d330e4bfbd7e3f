#include "client/report/assets.h"

#include <absl/strings/str_cat.h>
#include <zlib.h>

#include <stdexcept>

namespace epo::report {

std::string Asset(std::string_view name) {
  for (const PackedAsset& asset : PackedAssets()) {
    if (asset.name != name) continue;
    std::string content(asset.size, '\0');
    uLongf size = content.size();
    if (uncompress(reinterpret_cast<Bytef*>(content.data()), &size, asset.data,
                   asset.packed_size) == Z_OK) {
      return content;
    }
  }
  throw std::logic_error(absl::StrCat("the program's part ", std::string(name), " is missing"));
}

}  // namespace epo::report
