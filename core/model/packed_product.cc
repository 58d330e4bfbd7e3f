#include "core/model/packed_product.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace epo {
namespace {

// Columns of a panel: two vectors. With six rows that makes 12 running sums, as many as hide the
// latency of a multiply-add, and leaves registers for a panel's row and one activation.
constexpr int64_t kPanel = 16;
constexpr int64_t kRows = 6;
// A packed block of weights, 221 KB, stays in the second-level cache while all rows pass by; the
// six rows' part of x stays in the first.
constexpr int64_t kBlockOut = 96;
constexpr int64_t kBlockIn = 576;

// Eight elements as float32.
__m256 Load(const float* x) { return _mm256_loadu_ps(x); }
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
__m256 Load(const BFloat16* x) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
__m256 Load(const Float16* x) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

// to[k * kPanel + j] = from[j * stride + k] for k, j < 8.
template <typename T>
void Transpose8(const T* from, int64_t stride, float* to) {
  __m256 row[8];
  for (int i = 0; i < 8; ++i) row[i] = Load(from + i * stride);
  __m256 pair[8];
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
    pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
  }
  __m256 quad[8];
  for (int i = 0; i < 8; i += 4) {
    quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
    quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xEE);
    quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
    quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * kPanel, _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * kPanel, _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31));
  }
}

float Widen(const float* x) { return *x; }
float Widen(const BFloat16* x) {
  const uint32_t bits = static_cast<uint32_t>(x->bits) << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
float Widen(const Float16* x) { return _cvtsh_ss(x->bits); }

// `columns` (up to kPanel) rows of a weight, `depth` elements of each, as a panel [depth, kPanel].
template <typename T>
void Pack(const T* from, int64_t stride, int64_t columns, int64_t depth, float* panel) {
  int64_t k = 0;
  if (columns == kPanel) {
    for (; k + 8 <= depth; k += 8) {
      Transpose8(from + k, stride, panel + k * kPanel);
      Transpose8(from + 8 * stride + k, stride, panel + k * kPanel + 8);
    }
  }
  for (; k < depth; ++k) {
    for (int64_t j = 0; j < kPanel; ++j) {
      panel[k * kPanel + j] = j < columns ? Widen(from + j * stride + k) : 0.0F;
    }
  }
}

// The same of a weight's columns: panel[k * kPanel + j] = from[k * stride + j].
template <typename T>
void PackColumns(const T* from, int64_t stride, int64_t columns, int64_t depth, float* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    const T* row = from + k * stride;
    float* to = panel + k * kPanel;
    if (columns == kPanel) {
      _mm256_storeu_ps(to, Load(row));
      _mm256_storeu_ps(to + 8, Load(row + 8));
    } else {
      for (int64_t j = 0; j < kPanel; ++j) to[j] = j < columns ? Widen(row + j) : 0.0F;
    }
  }
}

// A tile's row into y, or onto it.
template <PackedProduct::Into into>
void Store(__m256 low, __m256 high, const float* bias, float* y) {
  if (bias != nullptr) {
    low = _mm256_add_ps(low, _mm256_loadu_ps(bias));
    high = _mm256_add_ps(high, _mm256_loadu_ps(bias + 8));
  }
  if constexpr (into == PackedProduct::Into::kAdd) {
    low = _mm256_add_ps(low, _mm256_loadu_ps(y));
    high = _mm256_add_ps(high, _mm256_loadu_ps(y + 8));
  }
  _mm256_storeu_ps(y, low);
  _mm256_storeu_ps(y + 8, high);
}

// `rows` rows of x times a panel. `bias`, if any, has kPanel elements.
template <int rows, PackedProduct::Into into>
void Tile(const float* x, int64_t x_stride, const float* panel, int64_t depth, const float* bias,
          int64_t columns, float* y, int64_t y_stride) {
  // The compiler keeps these in registers once the loops over rows are unrolled.
  __m256 low[rows];
  __m256 high[rows];
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r) low[r] = high[r] = _mm256_setzero_ps();
  for (int64_t k = 0; k < depth; ++k) {
    const __m256 left = _mm256_loadu_ps(panel + k * kPanel);
    const __m256 right = _mm256_loadu_ps(panel + k * kPanel + 8);
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
      const __m256 value = _mm256_broadcast_ss(x + r * x_stride + k);
      low[r] = _mm256_fmadd_ps(value, left, low[r]);
      high[r] = _mm256_fmadd_ps(value, right, high[r]);
    }
  }
  if (columns == kPanel) {
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) Store<into>(low[r], high[r], bias, y + r * y_stride);
    return;
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r) {
    float edge[kPanel] = {};
    float* to = y + r * y_stride;
    if (into == PackedProduct::Into::kAdd) std::copy(to, to + columns, edge);
    Store<into>(low[r], high[r], bias, edge);
    std::copy(edge, edge + columns, to);
  }
}

template <PackedProduct::Into into>
void TileOf(int64_t rows, const float* x, int64_t x_stride, const float* panel, int64_t depth,
            const float* bias, int64_t columns, float* y, int64_t y_stride) {
  switch (rows) {
    case 1:
      return Tile<1, into>(x, x_stride, panel, depth, bias, columns, y, y_stride);
    case 2:
      return Tile<2, into>(x, x_stride, panel, depth, bias, columns, y, y_stride);
    case 3:
      return Tile<3, into>(x, x_stride, panel, depth, bias, columns, y, y_stride);
    case 4:
      return Tile<4, into>(x, x_stride, panel, depth, bias, columns, y, y_stride);
    case 5:
      return Tile<5, into>(x, x_stride, panel, depth, bias, columns, y, y_stride);
    default:
      return Tile<kRows, into>(x, x_stride, panel, depth, bias, columns, y, y_stride);
  }
}

// With vectors of 16: two panels at a time, and twelve rows. Each element is the same chain of
// multiply-adds as with vectors of eight.
constexpr int64_t kWideRows = 12;
constexpr int64_t kWideColumns = 2 * kPanel;

// The lowest `count` of 16 elements.
__mmask16 Lowest(int64_t count) {
  return static_cast<__mmask16>((1U << std::clamp<int64_t>(count, 0, 16)) - 1);
}

template <PackedProduct::Into into>
__attribute__((target("avx512f"))) void StoreWide(__m512 value, __mmask16 mask, const float* bias,
                                                  float* y) {
  if (bias != nullptr) value = _mm512_add_ps(value, _mm512_loadu_ps(bias));
  if constexpr (into == PackedProduct::Into::kAdd) {
    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, y));
  }
  _mm512_mask_storeu_ps(y, mask, value);
}

// As Tile(), of two panels, or of one if `columns` is up to kPanel. `bias`, if any, has
// kWideColumns elements.
template <int rows, PackedProduct::Into into>
__attribute__((target("avx512f"))) void WideTile(const float* x, int64_t x_stride,
                                                 const float* panel, int64_t depth,
                                                 const float* bias, int64_t columns, float* y,
                                                 int64_t y_stride) {
  const float* second = columns > kPanel ? panel + kPanel * depth : panel;
  __m512 low[rows];
  __m512 high[rows];
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) low[r] = high[r] = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; ++k) {
    const __m512 left = _mm512_loadu_ps(panel + k * kPanel);
    const __m512 right = _mm512_loadu_ps(second + k * kPanel);
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r) {
      const __m512 value = _mm512_set1_ps(x[r * x_stride + k]);
      low[r] = _mm512_fmadd_ps(value, left, low[r]);
      high[r] = _mm512_fmadd_ps(value, right, high[r]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r) {
    float* to = y + r * y_stride;
    StoreWide<into>(low[r], Lowest(columns), bias, to);
    if (columns <= kPanel) continue;
    StoreWide<into>(high[r], Lowest(columns - kPanel), bias == nullptr ? nullptr : bias + kPanel,
                    to + kPanel);
  }
}

using TileFunction = void (*)(const float*, int64_t, const float*, int64_t, const float*, int64_t,
                              float*, int64_t);
// At [i]: of i + 1 rows.
template <PackedProduct::Into into, int... i>
constexpr std::array<TileFunction, sizeof...(i)> WideTiles(std::integer_sequence<int, i...>) {
  return {WideTile<i + 1, into>...};
}
template <PackedProduct::Into into>
constexpr auto kWideTiles = WideTiles<into>(std::make_integer_sequence<int, kWideRows>());

// Works on tiles of one width of vectors or the other.
struct Tiles {
  explicit Tiles(bool wide) : wide(wide) {}

  template <PackedProduct::Into into>
  void Run(int64_t count, const float* x, int64_t x_stride, const float* panel, int64_t depth,
           const float* bias, int64_t columns_here, float* y, int64_t y_stride) const {
    if (wide) {
      kWideTiles<into>[count - 1](x, x_stride, panel, depth, bias, columns_here, y, y_stride);
    } else {
      TileOf<into>(count, x, x_stride, panel, depth, bias, columns_here, y, y_stride);
    }
  }

  const bool wide;
  const int64_t rows = wide ? kWideRows : kRows;
  const int64_t columns = wide ? kWideColumns : kPanel;
};

// y (=, +=) x W^T + b, or with `backward` x W.
template <typename T, bool backward>
void MultiplyAs(const float* x, int64_t rows, const StoredMatrix& weight, const float* bias,
                PackedProduct::Into into, float* y, int64_t stride, const Tiles& tiles,
                float* packed) {
  const auto* from = static_cast<const T*>(weight.data);
  const int64_t in = backward ? weight.out : weight.in;
  const int64_t outs = backward ? weight.in : weight.out;
  // Depth blocks of nearly equal size, whole vectors each.
  const int64_t blocks = (in + kBlockIn - 1) / kBlockIn;
  const int64_t block = ((in + blocks - 1) / blocks + 7) / 8 * 8;
  for (int64_t out = 0; out < outs; out += kBlockOut) {
    const int64_t some = std::min(kBlockOut, outs - out);
    for (int64_t k = 0; k < in; k += block) {
      const int64_t depth = std::min(block, in - k);
      for (int64_t j = 0; j < some; j += kPanel) {
        const int64_t columns = std::min(kPanel, some - j);
        if constexpr (backward) {
          PackColumns(from + k * weight.stride + out + j, weight.stride, columns, depth,
                      packed + j * depth);
        } else {
          Pack(from + (out + j) * weight.stride + k, weight.stride, columns, depth,
               packed + j * depth);
        }
      }
      for (int64_t r = 0; r < rows; r += tiles.rows) {
        const int64_t few = std::min(tiles.rows, rows - r);
        for (int64_t j = 0; j < some; j += tiles.columns) {
          const int64_t columns = std::min(tiles.columns, some - j);
          float shift[kWideColumns] = {};
          const float* shift_by = nullptr;
          if (bias != nullptr && k == 0) {
            std::copy(bias + out + j, bias + out + j + columns, shift);
            shift_by = shift;
          }
          float* to = y + r * stride + out + j;
          const float* panel = packed + j * depth;
          if (k == 0 && into == PackedProduct::Into::kSet) {
            tiles.Run<PackedProduct::Into::kSet>(few, x + r * in + k, in, panel, depth, shift_by,
                                                 columns, to, stride);
          } else {
            tiles.Run<PackedProduct::Into::kAdd>(few, x + r * in + k, in, panel, depth, shift_by,
                                                 columns, to, stride);
          }
        }
      }
    }
  }
}

template <bool backward>
void Dispatch(const float* x, int64_t rows, const StoredMatrix& weight, const float* bias,
              PackedProduct::Into into, float* y, int64_t stride, bool wide, float* packed) {
  const Tiles tiles(wide);
  switch (weight.type) {
    case StoredMatrix::Type::kFloat32:
      return MultiplyAs<float, backward>(x, rows, weight, bias, into, y, stride, tiles, packed);
    case StoredMatrix::Type::kBFloat16:
      return MultiplyAs<BFloat16, backward>(x, rows, weight, bias, into, y, stride, tiles, packed);
    case StoredMatrix::Type::kFloat16:
      return MultiplyAs<Float16, backward>(x, rows, weight, bias, into, y, stride, tiles, packed);
  }
}

}  // namespace

PackedProduct::Units PackedProduct::ThisCpu() {
  return {.wide = __builtin_cpu_supports("avx512f") != 0, .tiles = AmxProduct::Available()};
}

PackedProduct::PackedProduct(const Units& units)
    : units_(units), packed_(std::make_unique<float[]>(kBlockOut * kBlockIn)) {}
PackedProduct::~PackedProduct() = default;

bool PackedProduct::ByTiles(const StoredMatrix& weight) const {
  return units_.tiles && weight.type == StoredMatrix::Type::kBFloat16;
}

void PackedProduct::Multiply(const float* x, int64_t rows, const StoredMatrix& weight,
                             const float* bias, Into into, float* y, int64_t stride) {
  if (ByTiles(weight)) {
    return tiles_.Multiply(x, rows, weight, bias, into == Into::kAdd, y, stride);
  }
  Dispatch</*backward=*/false>(x, rows, weight, bias, into, y, stride, units_.wide, packed_.get());
}

void PackedProduct::MultiplyBackward(const float* gradient, int64_t rows,
                                     const StoredMatrix& weight, float* y, int64_t stride) {
  if (ByTiles(weight)) return tiles_.MultiplyBackward(gradient, rows, weight, y, stride);
  Dispatch</*backward=*/true>(gradient, rows, weight, /*bias=*/nullptr, Into::kSet, y, stride,
                              units_.wide, packed_.get());
}

}  // namespace epo
