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

// A parent of 5 tokens, changed at 3, with a last row that stands apart; heads of a width that is
// no multiple of a vector.
TEST(KernelsTest, AttentionFollowsItsFormula) {
  constexpr int64_t kHeads = 4;
  constexpr int64_t kKvHeads = 2;
  for (const int64_t width : {8, 12, 40, 64}) {
    const std::vector<float> query = Random(10 * kHeads * width, 1, 4);
    const std::vector<float> key = Random(10 * kKvHeads * width, 1, 5);
    const std::vector<float> value = Random(10 * kKvHeads * width, 1, 6);
    const std::vector<float> parent_keys = Random(5 * kKvHeads * width, 1, 7);
    const std::vector<float> parent_values = Random(5 * kKvHeads * width, 1, 8);
    const AttentionSpan span{parent_keys.data(), parent_values.data(), /*first=*/3, /*row=*/2,
                             /*count=*/3,        /*last_row=*/8};
    std::vector<float> out(query.size(), -1);
    Attend({&span, 1}, query.data(), key.data(), value.data(), kHeads, kKvHeads, width, out.data());
    const int64_t rows[] = {2, 3, 4, 8};
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t h = 0; h < kHeads; ++h) {
        const int64_t offset = h / 2 * width;
        std::vector<const float*> keys, values;
        for (int64_t j = 0; j < 3; ++j) {
          keys.push_back(parent_keys.data() + j * kKvHeads * width + offset);
          values.push_back(parent_values.data() + j * kKvHeads * width + offset);
        }
        for (int64_t j = 0; j <= i; ++j) {
          keys.push_back(key.data() + rows[j] * kKvHeads * width + offset);
          values.push_back(value.data() + rows[j] * kKvHeads * width + offset);
        }
        const float* q = query.data() + (rows[i] * kHeads + h) * width;
        std::vector<double> weights;
        double sum = 0;
        for (const float* k : keys) {
          double dot = 0;
          for (int64_t d = 0; d < width; ++d) dot += double{q[d]} * k[d];
          weights.push_back(std::exp(dot / std::sqrt(width)));
          sum += weights.back();
        }
        for (int64_t d = 0; d < width; ++d) {
          double mixed = 0;
          for (size_t j = 0; j < values.size(); ++j) mixed += weights[j] / sum * values[j][d];
          EXPECT_NEAR(out[(rows[i] * kHeads + h) * width + d], mixed, 1e-5);
        }
      }
    }
    EXPECT_EQ(out[0], -1);
    EXPECT_EQ(out[5 * kHeads * width], -1);
  }
}

}  // namespace
}  // namespace epo::kernels
