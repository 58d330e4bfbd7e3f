#include "server/store_compress.h"

#include <zstd.h>

#include <memory>

namespace epo {
namespace {

// A protobuf message is smaller than this; a frame that claims more is damaged.
constexpr unsigned long long kMaxBytes = 1ULL << 31;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

}  // namespace

std::string Compress(const std::string& bytes) {
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  // Cannot fail: the frame has room for the worst case.
  frame.resize(
      ZSTD_compress2(context.get(), frame.data(), frame.size(), bytes.data(), bytes.size()));
  return frame;
}

std::optional<std::string> Decompress(const std::string& frame) {
  // Its two error values are larger than any size.
  const unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size > kMaxBytes) return std::nullopt;
  std::string bytes(size, '\0');
  if (ZSTD_decompress(bytes.data(), bytes.size(), frame.data(), frame.size()) != size) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace epo
