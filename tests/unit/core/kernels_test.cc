#include "core/evaluate/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace epo::kernels {
namespace {

std::vector<float> Random(size_t count, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

constexpr double kTolerance = 2e-6;

// From far below what e^x can hold to far above.
TEST(KernelsTest, ActivationsFollowTheirFormulas) {
  std::vector<float> inputs = Random(1003, 5, 1);
  inputs.insert(inputs.end(), {0, -80, -90, -200, 60, 90, 200, -1e30F, 1e30F});
  const std::vector<float> factor = Random(inputs.size(), 1, 2);
  std::vector<float> silu = inputs;
  SiluTimes(silu.data(), factor.data(), static_cast<int64_t>(silu.size()));
  std::vector<float> gelu = inputs;
  GeluTanh(gelu.data(), static_cast<int64_t>(gelu.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double x = inputs[i];
    const double by_silu = x / (1 + std::exp(-x)) * factor[i];
    EXPECT_NEAR(silu[i], by_silu, kTolerance * (1 + std::abs(by_silu))) << x;
    const double by_gelu =
        0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    EXPECT_NEAR(gelu[i], by_gelu, kTolerance * (1 + std::abs(by_gelu))) << x;
  }
}

TEST(KernelsTest, ANotANumberStaysOne) {
  std::vector<float> hidden(9, 1);
  const std::vector<float> factor(9, 1);
  hidden[2] = hidden[8] = std::numeric_limits<float>::quiet_NaN();
  SiluTimes(hidden.data(), factor.data(), 9);
  EXPECT_TRUE(std::isnan(hidden[2]));
  EXPECT_TRUE(std::isnan(hidden[8]));
  EXPECT_FALSE(std::isnan(hidden[3]));
}

TEST(KernelsTest, LogSumExpOverPartsIsThatOverTheWhole) {
  constexpr int64_t kRows = 3;
  constexpr int64_t kColumns = 101;
  const std::vector<float> logits = Random(kRows * 2 * kColumns, 20, 3);
  std::vector<float> maxima(kRows, -std::numeric_limits<float>::infinity()), sums(kRows, 0);
  AddToLogSumExp(logits.data(), kRows, kColumns, maxima.data(), sums.data());
  AddToLogSumExp(logits.data() + kRows * kColumns, kRows, kColumns, maxima.data(), sums.data());
  for (int64_t r = 0; r < kRows; ++r) {
    double total = 0;
    for (const int64_t part : {int64_t{0}, kRows * kColumns}) {
      for (int64_t c = 0; c < kColumns; ++c) total += std::exp(logits[part + r * kColumns + c]);
    }
    EXPECT_NEAR(maxima[r] + std::log(sums[r]), std::log(total), 1e-5);
  }
}

// A parent of 5 tokens, changed at 3, with two last rows that stand apart; heads of a width that is
// no multiple of a vector. Without a prefix, and behind one of 7 keys that come in two stretches.
TEST(KernelsTest, AttentionFollowsItsFormula) {
  constexpr int64_t kHeads = 4;
  constexpr int64_t kKvHeads = 2;
  constexpr int64_t kRows = 10;
  constexpr int64_t kPrefix = 7;
  for (const int64_t width : {8, 12, 40, 64}) {
    const std::vector<float> query = Random(kRows * kHeads * width, 1, 4);
    const std::vector<float> key = Random(kRows * kKvHeads * width, 1, 5);
    const std::vector<float> value = Random(kRows * kKvHeads * width, 1, 6);
    const std::vector<float> parent_keys = Random(5 * kKvHeads * width, 1, 7);
    const std::vector<float> parent_values = Random(5 * kKvHeads * width, 1, 8);
    const std::vector<float> prefix_keys = Random(kPrefix * kKvHeads * width, 1, 9);
    const std::vector<float> prefix_values = Random(kPrefix * kKvHeads * width, 1, 10);
    const auto dot = [&](int64_t row, int64_t h, const float* k) {
      double sum = 0;
      for (int64_t d = 0; d < width; ++d)
        sum += double{query[(row * kHeads + h) * width + d]} * k[d];
      return sum;
    };

    std::vector<float> greatest(kRows * kHeads, -std::numeric_limits<float>::infinity());
    std::vector<float> sums(kRows * kHeads, 0), mixed(query.size(), 0);
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(width)));
    for (int64_t at = 0; at < kRows * kHeads; ++at) {
      const int64_t offset = at % kHeads / 2 * width;
      for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 5}, {5, kPrefix}}) {
        std::vector<float> scores;
        for (int64_t j = first; j < last; ++j) {
          scores.push_back(static_cast<float>(
              dot(at / kHeads, at % kHeads, prefix_keys.data() + j * kKvHeads * width + offset)));
        }
        AddToAttention(scores.data(), 1, last - first, scale, width, &greatest[at], &sums[at],
                       &mixed[at * width]);
        for (int64_t j = first; j < last; ++j) {
          for (int64_t d = 0; d < width; ++d) {
            mixed[at * width + d] +=
                scores[j - first] * prefix_values[j * kKvHeads * width + offset + d];
          }
        }
      }
    }

    for (const bool behind : {false, true}) {
      const AttentionSpan span{.parent_keys = parent_keys.data(),
                               .parent_values = parent_values.data(),
                               .inherited = 3,
                               .row = 2,
                               .count = 3,
                               .tail_row = 8,
                               .tail_count = 2,
                               .behind_prefix = behind};
      std::vector<float> out(query.size(), -1);
      Attend({&span, 1}, {greatest.data(), sums.data(), mixed.data()}, query.data(), key.data(),
             value.data(), kHeads, kKvHeads, width, out.data());
      const int64_t rows[] = {2, 3, 4, 8, 9};
      for (int64_t i = 0; i < 5; ++i) {
        for (int64_t h = 0; h < kHeads; ++h) {
          const int64_t offset = h / 2 * width;
          std::vector<const float*> keys, values;
          const auto see = [&](const std::vector<float>& k, const std::vector<float>& v,
                               int64_t j) {
            keys.push_back(k.data() + j * kKvHeads * width + offset);
            values.push_back(v.data() + j * kKvHeads * width + offset);
          };
          for (int64_t j = 0; behind && j < kPrefix; ++j) see(prefix_keys, prefix_values, j);
          for (int64_t j = 0; j < 3; ++j) see(parent_keys, parent_values, j);
          for (int64_t j = 0; j <= i; ++j) see(key, value, rows[j]);
          std::vector<double> weights;
          double sum = 0;
          for (const float* k : keys) {
            weights.push_back(std::exp(dot(rows[i], h, k) / std::sqrt(width)));
            sum += weights.back();
          }
          for (int64_t d = 0; d < width; ++d) {
            double expected = 0;
            for (size_t j = 0; j < values.size(); ++j) expected += weights[j] / sum * values[j][d];
            EXPECT_NEAR(out[(rows[i] * kHeads + h) * width + d], expected, 1e-5);
          }
        }
      }
      EXPECT_EQ(out[0], -1);
      EXPECT_EQ(out[5 * kHeads * width], -1);
    }
  }
}

}  // namespace
}  // namespace epo::kernels
