#include "core/model/amx_product.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace epo {
namespace {

// Rows of a tile, and columns of one of sums; a tile of x or of weights is 32 deep.
constexpr int64_t kTile = 16;
constexpr int64_t kDepth = 32;
// Sums are made two by two tiles at a time, so that each tile read serves two products.
constexpr int64_t kRows = 2 * kTile;
constexpr int64_t kColumns = 2 * kTile;
// A packed block of weights, up to 295 KB, stays in the second-level cache while all rows pass by.
constexpr int64_t kBlockOut = 96;
constexpr int64_t kBlockIn = 1536;

int64_t RoundUp(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

// Palette 1: tiles of 16 rows of 64 bytes, all eight alike.
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {kTile, kTile, kTile, kTile, kTile, kTile, kTile, kTile};
};

// Not on the stack: the compiler does not know that the instruction reads all of it.
constexpr TileConfig kConfig;

// `columns` (up to 16) rows of a weight as a panel [depth / 2, 16]: pair p of column j is elements
// 2p and 2p + 1 of its row; zeros up to `pairs` pairs.
void Pack(const uint16_t* from, int64_t stride, int64_t columns, int64_t depth, int64_t pairs,
          uint32_t* panel) {
  for (int64_t j = 0; j < kTile; ++j) {
    for (int64_t p = 0; p < pairs; ++p) {
      uint32_t pair = 0;
      if (j < columns && 2 * p + 1 < depth) {
        std::memcpy(&pair, from + j * stride + 2 * p, sizeof(pair));
      } else if (j < columns && 2 * p < depth) {
        pair = from[j * stride + 2 * p];
      }
      panel[p * kTile + j] = pair;
    }
  }
}

// The same of a whole number of 16 x 16 pairs.
__attribute__((target("avx512f"))) void PackWhole(const uint16_t* from, int64_t stride,
                                                  int64_t pairs, uint32_t* panel) {
  for (int64_t p = 0; p < pairs; p += 16) {
    __m512i row[16], half[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_si512(from + i * stride + 2 * p);
      // A transposition of 4 x 4 within each 128 bits, then of the 128 bits.
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      const __m512i a = _mm512_unpacklo_epi32(row[i], row[i + 1]);
      const __m512i b = _mm512_unpackhi_epi32(row[i], row[i + 1]);
      const __m512i c = _mm512_unpacklo_epi32(row[i + 2], row[i + 3]);
      const __m512i d = _mm512_unpackhi_epi32(row[i + 2], row[i + 3]);
      half[i] = _mm512_unpacklo_epi64(a, c);
      half[i + 1] = _mm512_unpackhi_epi64(a, c);
      half[i + 2] = _mm512_unpacklo_epi64(b, d);
      half[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512i ab = _mm512_shuffle_i32x4(half[i], half[i + 4], 0x88);
      const __m512i ab_odd = _mm512_shuffle_i32x4(half[i], half[i + 4], 0xdd);
      const __m512i cd = _mm512_shuffle_i32x4(half[i + 8], half[i + 12], 0x88);
      const __m512i cd_odd = _mm512_shuffle_i32x4(half[i + 8], half[i + 12], 0xdd);
      uint32_t* to = panel + (p + i) * kTile;
      _mm512_storeu_si512(to, _mm512_shuffle_i32x4(ab, cd, 0x88));
      _mm512_storeu_si512(to + 4 * kTile, _mm512_shuffle_i32x4(ab_odd, cd_odd, 0x88));
      _mm512_storeu_si512(to + 8 * kTile, _mm512_shuffle_i32x4(ab, cd, 0xdd));
      _mm512_storeu_si512(to + 12 * kTile, _mm512_shuffle_i32x4(ab_odd, cd_odd, 0xdd));
    }
  }
}

// A weight's columns as a panel: pair p of column j is elements [2p, j] and [2p + 1, j].
__attribute__((target("avx512f,avx512bw,avx512vl"))) void PackColumns(const uint16_t* from,
                                                                      int64_t stride,
                                                                      int64_t columns,
                                                                      int64_t depth, int64_t pairs,
                                                                      uint32_t* panel) {
  const auto mask = static_cast<__mmask16>((1U << columns) - 1);
  for (int64_t p = 0; p < pairs; ++p) {
    const auto row = [&](int64_t k) __attribute__((target("avx512f,avx512bw,avx512vl"))) {
      return k < depth ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + k * stride))
                       : _mm512_setzero_si512();
    };
    _mm512_storeu_si512(panel + p * kTile,
                        _mm512_or_si512(row(2 * p), _mm512_slli_epi32(row(2 * p + 1), 16)));
  }
}

// x [kRows, depth] times two panels, or one and itself again, into sums [kRows, kColumns].
__attribute__((target("amx-tile,amx-bf16"))) void Sum(const uint16_t* x, int64_t x_stride,
                                                      const uint32_t* first, const uint32_t* second,
                                                      int64_t depth, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t x_bytes = x_stride * static_cast<int64_t>(sizeof(*x));
  for (int64_t k = 0; k < depth; k += kDepth) {
    _tile_loadd(4, x + k, x_bytes);
    _tile_loadd(5, x + kTile * x_stride + k, x_bytes);
    _tile_loadd(6, first + k / 2 * kTile, 64);
    _tile_loadd(7, second + k / 2 * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  constexpr int64_t kBytes = kColumns * sizeof(float);
  _tile_stored(0, sums, kBytes);
  _tile_stored(1, sums + kTile, kBytes);
  _tile_stored(2, sums + kTile * kColumns, kBytes);
  _tile_stored(3, sums + kTile * kColumns + kTile, kBytes);
}

// The first `columns` of `rows` rows of sums into y, or onto it. `bias`, if any, has kColumns
// elements.
__attribute__((target("avx512f"))) void Store(const float* sums, int64_t rows, int64_t columns,
                                              const float* bias, bool add, float* y,
                                              int64_t stride) {
  for (int64_t half = 0; half < columns; half += kTile) {
    const auto mask = static_cast<__mmask16>((1U << std::min<int64_t>(kTile, columns - half)) - 1);
    for (int64_t r = 0; r < rows; ++r) {
      float* to = y + r * stride + half;
      __m512 value = _mm512_loadu_ps(sums + r * kColumns + half);
      if (bias != nullptr) value = _mm512_add_ps(value, _mm512_loadu_ps(bias + half));
      if (add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, to));
      _mm512_mask_storeu_ps(to, mask, value);
    }
  }
}

__attribute__((target("amx-tile"))) void Configure() { _tile_loadconfig(&kConfig); }
__attribute__((target("amx-tile"))) void Release() { _tile_release(); }

__attribute__((target("avx512f,avx512bf16,avx512bw,avx512vl"))) void RoundRow(const float* x,
                                                                              int64_t depth,
                                                                              uint16_t* to) {
  for (int64_t k = 0; k < depth; k += 16) {
    const auto mask = static_cast<__mmask16>((1U << std::min<int64_t>(16, depth - k)) - 1);
    const __m256bh halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + k));
    _mm256_mask_storeu_epi16(to + k, mask, reinterpret_cast<__m256i>(halves));
  }
}

}  // namespace

bool AmxProduct::Available() {
  static const bool available = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kTiles = 1U << 24;
    constexpr unsigned kBFloat16 = 1U << 22;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) == 0 || (d & kBFloat16) == 0) {
      return false;
    }
    if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl")) {
      return false;
    }
    // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA.
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  }();
  return available;
}

void AmxProduct::Round(const float* x, int64_t rows, int64_t depth) {
  rounded_stride_ = RoundUp(depth, kDepth);
  // Rows past the last are read, and what they give is left alone.
  rounded_.resize(std::max<size_t>(rounded_.size(), RoundUp(rows, kRows) * rounded_stride_));
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t* to = rounded_.data() + r * rounded_stride_;
    RoundRow(x + r * depth, depth, to);
    std::fill(to + depth, to + rounded_stride_, uint16_t{0});
  }
}

template <bool backward>
void AmxProduct::Run(const float* x, int64_t rows, const StoredMatrix& weight, const float* bias,
                     bool add, float* y, int64_t stride) {
  const auto* from = static_cast<const uint16_t*>(weight.data);
  const int64_t in = backward ? weight.out : weight.in;
  const int64_t outs = backward ? weight.in : weight.out;
  Round(x, rows, in);
  packed_.resize(kBlockOut * std::min(RoundUp(in, kDepth), kBlockIn) / 2);
  alignas(64) float sums[kRows * kColumns];
  Configure();
  for (int64_t out = 0; out < outs; out += kBlockOut) {
    const int64_t some = std::min(kBlockOut, outs - out);
    for (int64_t k = 0; k < in; k += kBlockIn) {
      const int64_t depth = std::min(kBlockIn, in - k);
      const int64_t whole = RoundUp(depth, kDepth);
      const auto panel = [&](int64_t j) { return packed_.data() + j * whole / 2; };
      for (int64_t j = 0; j < some; j += kTile) {
        const int64_t columns = std::min(kTile, some - j);
        if constexpr (backward) {
          PackColumns(from + k * weight.stride + out + j, weight.stride, columns, depth, whole / 2,
                      panel(j));
        } else if (columns == kTile && depth == whole) {
          PackWhole(from + (out + j) * weight.stride + k, weight.stride, whole / 2, panel(j));
        } else {
          Pack(from + (out + j) * weight.stride + k, weight.stride, columns, depth, whole / 2,
               panel(j));
        }
      }
      for (int64_t r = 0; r < rows; r += kRows) {
        for (int64_t j = 0; j < some; j += kColumns) {
          const int64_t columns = std::min(kColumns, some - j);
          float shift[kColumns] = {};
          const bool shifts = bias != nullptr && k == 0;
          if (shifts) std::copy(bias + out + j, bias + out + j + columns, shift);
          Sum(rounded_.data() + r * rounded_stride_ + k, rounded_stride_, panel(j),
              panel(columns > kTile ? j + kTile : j), whole, sums);
          Store(sums, std::min(kRows, rows - r), columns, shifts ? shift : nullptr, add || k > 0,
                y + r * stride + out + j, stride);
        }
      }
    }
  }
  Release();
}

void AmxProduct::Multiply(const float* x, int64_t rows, const StoredMatrix& weight,
                          const float* bias, bool add, float* y, int64_t stride) {
  Run</*backward=*/false>(x, rows, weight, bias, add, y, stride);
}

void AmxProduct::MultiplyBackward(const float* gradient, int64_t rows, const StoredMatrix& weight,
                                  float* y, int64_t stride) {
  Run</*backward=*/true>(gradient, rows, weight, /*bias=*/nullptr, /*add=*/false, y, stride);
}

}  // namespace epo
