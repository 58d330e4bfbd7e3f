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
  // Keys and values of the parent, [>= first, kv_heads * head_dim] each.
  const float* parent_keys;
  const float* parent_values;
  // Position of the first own row.
  int64_t first;
  // Own rows `rows` .. `rows + count - 1` stand at positions first, first + 1, ...
  int64_t row;
  int64_t count;
  // A further own row at position first + count, or -1.
  int64_t last_row;
};

// Causal attention of every own row over its parent's keys before `first` and its own since.
// `query` is [rows, heads * head_dim]; `key` and `value` are [rows, kv_heads * head_dim]; all
// rotated. Writes the same rows of `out`, [rows, heads * head_dim].
void Attend(std::span<const AttentionSpan> spans, const float* query, const float* key,
            const float* value, int64_t heads, int64_t kv_heads, int64_t head_dim, float* out);

// Takes further `columns` of each row's logits, [rows, columns], into its running maximum and the
// sum of exp(logit - maximum); they start as -infinity and 0.
void AddToLogSumExp(const float* logits, int64_t rows, int64_t columns, float* maximum, float* sum);

}  // namespace epo::kernels

#endif  // EPO_CORE_EVALUATE_KERNELS_H_
