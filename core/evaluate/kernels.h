// The packed pass's row kernels on the CPU, float32: what lies between the matrix products, each
// one vectorised sweep over memory on the calling thread. Every row's result depends on that row
// alone, never on how many there are.
#ifndef EPO_CORE_EVALUATE_KERNELS_H_
#define EPO_CORE_EVALUATE_KERNELS_H_

#include <cstdint>
#include <span>

namespace epo::kernels {

// out = weight * x / sqrt(mean(x^2) + epsilon), a row at a time. `x` and `out` are [rows, width],
// `weight` [width].
void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int64_t width,
             float* out);

// out = weight * (x - mean) / sqrt(variance + epsilon) + bias. Shapes as RmsNorm.
void LayerNorm(const float* x, const float* weight, const float* bias, float epsilon, int64_t rows,
               int64_t width, float* out);

// Rotates, in place, the first 2 * half channels of each of `heads` heads of `head_dim` channels:
// channel i with channel i + half. `x` is [rows, heads * head_dim]; row r takes row positions[r] of
// the tables `cos` and `sin`, [context, half].
void Rotate(float* x, const int64_t* positions, const float* cos, const float* sin, int64_t rows,
            int64_t heads, int64_t head_dim, int64_t half);

// hidden = silu(hidden) * factor, in place, `count` elements.
void SiluTimes(float* hidden, const float* factor, int64_t count);

// hidden = gelu(hidden) by the tanh approximation, in place.
void GeluTanh(float* hidden, int64_t count);

// One candidate's place in a packed pass.
struct AttentionSpan {
  // Keys and values of the parent's own rows, [>= inherited, kv_heads * head_dim] each, the first
  // `inherited` of which stand before the candidate's own rows.
  const float* parent_keys;
  const float* parent_values;
  int64_t inherited;
  // Own rows `row` .. `row + count - 1`, then `tail_row` .. `tail_row + tail_count - 1`, stand at
  // the positions after those.
  int64_t row;
  int64_t count;
  int64_t tail_row;
  int64_t tail_count;
  // Whether a prefix that rows share stands before all of that.
  bool behind_prefix = false;
};

// Of attention to some keys that was computed apart: for each row and head the greatest scaled
// score, the sum of exp(score - greatest), [rows * heads] each, and the values weighted so, [rows *
// heads * head_dim].
struct PartialAttention {
  const float* greatest = nullptr;
  const float* sum = nullptr;
  const float* mixed = nullptr;
};

// Causal attention of every own row over its parent's keys and its own, and over `prefix`'s where
// its span is behind one. `query` is [rows, heads * head_dim]; `key` and `value` are [rows,
// kv_heads * head_dim]; all rotated. Writes the same rows of `out`, [rows, heads * head_dim].
void Attend(std::span<const AttentionSpan> spans, const PartialAttention& prefix,
            const float* query, const float* key, const float* value, int64_t heads,
            int64_t kv_heads, int64_t head_dim, float* out);

// Takes scores of further keys into running attention. A row's `columns` scores, scaled by `scale`,
// become weights exp(score - greatest) in place; `greatest` and `sum` [rows] start as -infinity and
// 0, and `mixed` [rows, head_dim] is scaled to the new greatest score.
void AddToAttention(float* scores, int64_t rows, int64_t columns, float scale, int64_t head_dim,
                    float* greatest, float* sum, float* mixed);

// Dot product, sum and sum of squared differences from `mean` in float64, the same bits however the
// vectors lie.
double DotWide(const float* a, const float* b, int64_t count);
double SumWide(const float* x, int64_t count);
double SquaresWide(const float* x, double mean, int64_t count);

// Takes further `columns` of each row's logits, [rows, columns], into its running maximum and the
// sum of exp(logit - maximum); they start as -infinity and 0.
void AddToLogSumExp(const float* logits, int64_t rows, int64_t columns, float* maximum, float* sum);

}  // namespace epo::kernels

#endif  // EPO_CORE_EVALUATE_KERNELS_H_
