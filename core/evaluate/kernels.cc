#include "core/evaluate/kernels.h"

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace epo::kernels {
namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Vec::size();

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

// e^x to 2 units in the last place; 0 below -87. The polynomial is Cephes's expf.
Vec Exp(Vec x) {
  // In this order of operands a NaN stays one.
  const __m256 clamped =
      _mm256_min_ps(_mm256_set1_ps(88.37F), _mm256_max_ps(_mm256_set1_ps(-87.3F), x));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(clamped, _mm256_set1_ps(1.44269504088896341F)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln 2 in two parts, the first exact in few bits.
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), clamped);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4F);
  for (const float c :
       {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F}) {
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  }
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0F)));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const __m256 result = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
  return _mm256_and_ps(result, _mm256_cmp_ps(x, _mm256_set1_ps(-87.3F), _CMP_NLT_UQ));
}

// scores[j] = query . (keys[j] + offset), four keys at a time: their sums hide each other's
// latency.
void Scores(const float* query, std::span<const float* const> keys, int64_t offset,
            int64_t head_dim, float* scores) {
  const auto count = static_cast<int64_t>(keys.size());
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const float* k[4];
    for (int i = 0; i < 4; ++i) k[i] = keys[j + i] + offset;
    __m256 sum[4] = {};
    int64_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) {
      const __m256 q = _mm256_loadu_ps(query + d);
      for (int i = 0; i < 4; ++i) sum[i] = _mm256_fmadd_ps(q, _mm256_loadu_ps(k[i] + d), sum[i]);
    }
    const __m256 pairs =
        _mm256_hadd_ps(_mm256_hadd_ps(sum[0], sum[1]), _mm256_hadd_ps(sum[2], sum[3]));
    _mm_storeu_ps(scores + j,
                  _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
    for (; d < head_dim; ++d) {
      for (int i = 0; i < 4; ++i) scores[j + i] += query[d] * k[i][d];
    }
  }
  for (; j < count; ++j) scores[j] = Dot(query, keys[j] + offset, head_dim);
}

// Turns `count` scores into exp(scale * (score - greatest)), in place; returns their sum.
float Weigh(float greatest, float scale, int64_t count, float* x) {
  const Vec shift(greatest);
  Vec sum(0.0F);
  float tail = 0.0F;
  MapInPlace(x, 0, count, [&](Vec scores, int64_t /*i*/, int64_t lanes) {
    const Vec e = Exp((scores - shift) * Vec(scale));
    if (lanes == kLanes) {
      sum = sum + e;
    } else {
      float rest[kLanes];
      e.store(rest);
      for (int64_t l = 0; l < lanes; ++l) tail += rest[l];
    }
    return e;
  });
  return Sum(sum) + tail;
}

float Greatest(const float* x, int64_t count) {
  float greatest = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < count; ++j) greatest = std::max(greatest, x[j]);
  return greatest;
}

// Scores into weights, in place.
void SoftMax(float scale, int64_t count, float* x) {
  const float norm = 1.0F / Weigh(Greatest(x, count), scale, count, x);
  for (int64_t j = 0; j < count; ++j) x[j] *= norm;
}

// out = sum over j of weights[j] * (values[j] + offset).
void Mix(const float* weights, std::span<const float* const> values, int64_t offset,
         int64_t head_dim, float* out) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= head_dim; d += 4 * kLanes) {
    __m256 sum[4] = {};
    for (size_t j = 0; j < values.size(); ++j) {
      const __m256 w = _mm256_set1_ps(weights[j]);
      const float* v = values[j] + offset + d;
      for (int i = 0; i < 4; ++i) {
        sum[i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(v + i * kLanes), sum[i]);
      }
    }
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + d + i * kLanes, sum[i]);
  }
  for (; d < head_dim; ++d) {
    float sum = 0;
    for (size_t j = 0; j < values.size(); ++j) sum += weights[j] * values[j][offset + d];
    out[d] = sum;
  }
}

}  // namespace

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int64_t width,
             float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * width;
    const float mean = Dot(row, row, width) / static_cast<float>(width);
    const float scale = 1.0F / std::sqrt(mean + epsilon);
    for (int64_t i = 0; i < width; ++i) out[r * width + i] = weight[i] * (row[i] * scale);
  }
}

void LayerNorm(const float* x, const float* weight, const float* bias, float epsilon, int64_t rows,
               int64_t width, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * width;
    float* to = out + r * width;
    Vec sum(0.0F);
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) sum = sum + Vec::loadu(row + i);
    float total = Sum(sum);
    for (; i < width; ++i) total += row[i];
    const float mean = total / static_cast<float>(width);
    for (i = 0; i < width; ++i) to[i] = row[i] - mean;
    const float scale = 1.0F / std::sqrt(Dot(to, to, width) / static_cast<float>(width) + epsilon);
    for (i = 0; i < width; ++i) to[i] = to[i] * scale * weight[i] + bias[i];
  }
}

void Rotate(float* x, const int64_t* positions, const float* cos, const float* sin, int64_t rows,
            int64_t heads, int64_t head_dim, int64_t half) {
  for (int64_t r = 0; r < rows; ++r) {
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
}

void SiluTimes(float* hidden, const float* factor, int64_t count) {
  MapInPlace(hidden, 0, count, [&](Vec x, int64_t i, int64_t lanes) {
    return x / (Vec(1.0F) + Exp(x.neg())) * Vec::loadu(factor + i, lanes);
  });
}

void GeluTanh(float* hidden, int64_t count) {
  // 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)).
  const Vec scale(-2.0F * 0.79788456080286535588F);
  const Vec cubic(0.044715F);
  MapInPlace(hidden, 0, count, [&](Vec x, int64_t /*i*/, int64_t /*lanes*/) {
    const Vec u = scale * (x + cubic * x * x * x);
    return x / (Vec(1.0F) + Exp(u));
  });
}

namespace {

// SoftMax and Mix together with what a prefix got: `count` scores of own keys in `weights`.
void MixBehind(float scale, float greatest, float prefix_sum, const float* prefix_mixed,
               std::span<const float* const> values, int64_t offset, int64_t head_dim,
               std::vector<float>& weights, float* out) {
  const auto count = static_cast<int64_t>(values.size());
  const float own = Greatest(weights.data(), count);
  // Of scaled scores, both.
  const float shared = std::max(greatest, own * scale);
  const float sum = Weigh(own, scale, count, weights.data());
  const float of_own = std::exp(own * scale - shared);
  const float of_prefix = std::exp(greatest - shared);
  const float norm = 1.0F / (sum * of_own + prefix_sum * of_prefix);
  for (int64_t j = 0; j < count; ++j) weights[j] *= of_own * norm;
  Mix(weights.data(), values, offset, head_dim, out);
  for (int64_t d = 0; d < head_dim; ++d) out[d] += prefix_mixed[d] * (of_prefix * norm);
}

}  // namespace

void Attend(std::span<const AttentionSpan> spans, const PartialAttention& prefix,
            const float* query, const float* key, const float* value, int64_t heads,
            int64_t kv_heads, int64_t head_dim, float* out) {
  const int64_t kv_width = kv_heads * head_dim;
  const int64_t group = heads / kv_heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  std::vector<const float*> keys, values;
  std::vector<float> weights;
  for (const AttentionSpan& span : spans) {
    keys.clear();
    values.clear();
    for (int64_t j = 0; j < span.inherited; ++j) {
      keys.push_back(span.parent_keys + j * kv_width);
      values.push_back(span.parent_values + j * kv_width);
    }
    const int64_t own = span.count + span.tail_count;
    weights.resize(span.inherited + own);
    for (int64_t i = 0; i < own; ++i) {
      const int64_t row = i < span.count ? span.row + i : span.tail_row + i - span.count;
      keys.push_back(key + row * kv_width);
      values.push_back(value + row * kv_width);
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t offset = h / group * head_dim;
        const int64_t at = row * heads + h;
        Scores(query + at * head_dim, keys, offset, head_dim, weights.data());
        if (span.behind_prefix) {
          MixBehind(scale, prefix.greatest[at], prefix.sum[at], prefix.mixed + at * head_dim,
                    values, offset, head_dim, weights, out + at * head_dim);
          continue;
        }
        SoftMax(scale, static_cast<int64_t>(keys.size()), weights.data());
        Mix(weights.data(), values, offset, head_dim, out + at * head_dim);
      }
    }
  }
}

void AddToAttention(float* scores, int64_t rows, int64_t columns, float scale, int64_t head_dim,
                    float* greatest, float* sum, float* mixed) {
  for (int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * columns;
    const float here = at::vec::reduce_all<float>(
        [](Vec a, Vec b) { return at::vec::maximum(a, b); }, row, columns);
    const float now = std::max(greatest[r], here * scale);
    const float keep = std::exp(greatest[r] - now);
    sum[r] = sum[r] * keep + Weigh(now / scale, scale, columns, row);
    greatest[r] = now;
    if (keep != 1.0F) {
      for (int64_t d = 0; d < head_dim; ++d) mixed[r * head_dim + d] *= keep;
    }
  }
}

double DotWide(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

double SumWide(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{x[i]};
  return sum;
}

double SquaresWide(const float* x, double mean, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += (double{x[i]} - mean) * (double{x[i]} - mean);
  return sum;
}

void AddToLogSumExp(const float* logits, int64_t rows, int64_t columns, float* maximum,
                    float* sum) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = logits + r * columns;
    const float greatest = std::max(
        maximum[r], at::vec::reduce_all<float>([](Vec a, Vec b) { return at::vec::maximum(a, b); },
                                               row, columns));
    const Vec shift(greatest);
    Vec total(0.0F);
    int64_t i = 0;
    for (; i + kLanes <= columns; i += kLanes) {
      total = total + Exp(Vec::loadu(row + i) - shift);
    }
    float tail = 0.0F;
    for (; i < columns; ++i) tail += std::exp(row[i] - greatest);
    sum[r] = sum[r] * std::exp(maximum[r] - greatest) + (Sum(total) + tail);
    maximum[r] = greatest;
  }
}

}  // namespace epo::kernels
