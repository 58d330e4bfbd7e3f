#include "core/evaluate/kernels.h"

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace epo::kernels {
namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Vec::size();

// Elements below which a second thread is not worth waking.
constexpr int64_t kGrain = 1 << 14;

int64_t RowGrain(int64_t width) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width));
}

float Sum(Vec x) {
  return at::vec::vec_reduce_all([](Vec a, Vec b) { return a + b; }, x, kLanes);
}

float Dot(const float* a, const float* b, int64_t count) {
  Vec sum(0.0F);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    sum = at::vec::fmadd(Vec::loadu(a + i), Vec::loadu(b + i), sum);
  }
  float total = Sum(sum);
  for (; i < count; ++i) total += a[i] * b[i];
  return total;
}

// Runs op(Vec) over `count` elements in place, `op` taking the index too; the tail goes through a
// padded vector.
template <typename Op>
void MapInPlace(float* x, int64_t begin, int64_t end, const Op& op) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) op(Vec::loadu(x + i), i, kLanes).store(x + i);
  if (i < end) op(Vec::loadu(x + i, end - i), i, end - i).store(x + i, static_cast<int>(end - i));
}

}  // namespace

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int64_t width,
             float* out) {
  at::parallel_for(0, rows, RowGrain(width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x + r * width;
      const float mean = Dot(row, row, width) / static_cast<float>(width);
      const float scale = 1.0F / std::sqrt(mean + epsilon);
      for (int64_t i = 0; i < width; ++i) out[r * width + i] = weight[i] * (row[i] * scale);
    }
  });
}

void LayerNorm(const float* x, const float* weight, const float* bias, float epsilon, int64_t rows,
               int64_t width, float* out) {
  at::parallel_for(0, rows, RowGrain(width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x + r * width;
      float* to = out + r * width;
      Vec sum(0.0F);
      int64_t i = 0;
      for (; i + kLanes <= width; i += kLanes) sum = sum + Vec::loadu(row + i);
      float total = Sum(sum);
      for (; i < width; ++i) total += row[i];
      const float mean = total / static_cast<float>(width);
      for (i = 0; i < width; ++i) to[i] = row[i] - mean;
      const float scale =
          1.0F / std::sqrt(Dot(to, to, width) / static_cast<float>(width) + epsilon);
      for (i = 0; i < width; ++i) to[i] = to[i] * scale * weight[i] + bias[i];
    }
  });
}

void Rotate(float* x, const int64_t* positions, const float* cos, const float* sin, int64_t rows,
            int64_t heads, int64_t head_dim, int64_t half) {
  at::parallel_for(0, rows, RowGrain(heads * head_dim), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* c = cos + positions[r] * half;
      const float* s = sin + positions[r] * half;
      for (int64_t h = 0; h < heads; ++h) {
        float* first = x + (r * heads + h) * head_dim;
        float* second = first + half;
        for (int64_t i = 0; i < half; ++i) {
          const float a = first[i];
          const float b = second[i];
          first[i] = a * c[i] - b * s[i];
          second[i] = b * c[i] + a * s[i];
        }
      }
    }
  });
}

void SiluTimes(float* hidden, const float* factor, int64_t count) {
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    MapInPlace(hidden, begin, end, [&](Vec x, int64_t i, int64_t lanes) {
      return x / (Vec(1.0F) + x.neg().exp()) * Vec::loadu(factor + i, lanes);
    });
  });
}

void GeluTanh(float* hidden, int64_t count) {
  // 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)).
  const Vec scale(-2.0F * 0.79788456080286535588F);
  const Vec cubic(0.044715F);
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    MapInPlace(hidden, begin, end, [&](Vec x, int64_t /*i*/, int64_t /*lanes*/) {
      const Vec u = scale * (x + cubic * x * x * x);
      return x / (Vec(1.0F) + u.exp());
    });
  });
}

void Attend(std::span<const AttentionSpan> spans, const float* query, const float* key,
            const float* value, int64_t heads, int64_t kv_heads, int64_t head_dim, float* out) {
  const int64_t kv_width = kv_heads * head_dim;
  const int64_t group = heads / kv_heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  at::parallel_for(0, static_cast<int64_t>(spans.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<const float*> keys, values;
    std::vector<float> weights;
    for (int64_t c = begin; c < end; ++c) {
      const AttentionSpan& span = spans[c];
      keys.clear();
      values.clear();
      for (int64_t j = 0; j < span.first; ++j) {
        keys.push_back(span.parent_keys + j * kv_width);
        values.push_back(span.parent_values + j * kv_width);
      }
      const int64_t own = span.count + (span.last_row >= 0 ? 1 : 0);
      weights.resize(span.first + own);
      for (int64_t i = 0; i < own; ++i) {
        const int64_t row = i < span.count ? span.row + i : span.last_row;
        keys.push_back(key + row * kv_width);
        values.push_back(value + row * kv_width);
        const auto visible = static_cast<int64_t>(keys.size());
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t offset = h / group * head_dim;
          const float* q = query + (row * heads + h) * head_dim;
          float greatest = -std::numeric_limits<float>::infinity();
          for (int64_t j = 0; j < visible; ++j) {
            weights[j] = Dot(q, keys[j] + offset, head_dim) * scale;
            greatest = std::max(greatest, weights[j]);
          }
          Vec sum(0.0F);
          float tail = 0.0F;
          MapInPlace(weights.data(), 0, visible, [&](Vec x, int64_t /*i*/, int64_t lanes) {
            const Vec e = (x - Vec(greatest)).exp();
            if (lanes == kLanes) {
              sum = sum + e;
            } else {
              float rest[kLanes];
              e.store(rest);
              for (int64_t l = 0; l < lanes; ++l) tail += rest[l];
            }
            return e;
          });
          const float norm = 1.0F / (Sum(sum) + tail);
          float* to = out + (row * heads + h) * head_dim;
          std::memset(to, 0, head_dim * sizeof(float));
          for (int64_t j = 0; j < visible; ++j) {
            const float w = weights[j] * norm;
            const float* v = values[j] + offset;
            for (int64_t d = 0; d < head_dim; ++d) to[d] += w * v[d];
          }
        }
      }
    }
  });
}

void MaxAndExpSum(const float* logits, int64_t rows, int64_t columns, float* maximum, float* sum) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = logits + r * columns;
    const float greatest = at::vec::reduce_all<float>(
        [](Vec a, Vec b) { return at::vec::maximum(a, b); }, row, columns);
    const Vec shift(greatest);
    Vec total(0.0F);
    int64_t i = 0;
    for (; i + kLanes <= columns; i += kLanes) {
      total = total + (Vec::loadu(row + i) - shift).exp();
    }
    float tail = 0.0F;
    for (; i < columns; ++i) tail += std::exp(row[i] - greatest);
    maximum[r] = greatest;
    sum[r] = Sum(total) + tail;
  }
}

void WidenBFloat16(const uint16_t* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    std::memcpy(out + i, &bits, sizeof(bits));
  }
}

void WidenFloat16(const uint16_t* x, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(out + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
  }
  for (; i < count; ++i) out[i] = _cvtsh_ss(x[i]);
}

}  // namespace epo::kernels
