// zstd frames for the store's large rows.
#ifndef EPO_SERVER_STORE_COMPRESS_H_
#define EPO_SERVER_STORE_COMPRESS_H_

#include <optional>
#include <string>

namespace epo {

// One frame that knows its content's size and checksum.
std::string Compress(const std::string& bytes);

// Nothing unless `frame` is whole and undamaged.
std::optional<std::string> Decompress(const std::string& frame);

}  // namespace epo

#endif  // EPO_SERVER_STORE_COMPRESS_H_
