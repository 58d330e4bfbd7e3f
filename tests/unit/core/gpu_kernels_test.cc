// The GPU's kernels, run by a host, against torch's operations in float64.
#include "core/model/gpu_kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/unit/core/host_kernels.h"

namespace epo {
namespace {

class GpuKernelsTest : public ::testing::TestWithParam<c10::ScalarType> {
 protected:
  GpuKernelsTest() { at::manual_seed(1); }

  at::Tensor Random(at::IntArrayRef sizes) {
    return at::randn(sizes, at::TensorOptions(at::kDouble)).to(GetParam());
  }
  // float64, or what results are summed up in.
  static at::Tensor Wide(const at::Tensor& x) {
    return x.to(GetParam() == at::kDouble ? at::kDouble : at::kFloat);
  }
  // To the last bits of the dtype.
  static void ExpectNear(const at::Tensor& actual, const at::Tensor& expected) {
    const double tolerance = GetParam() == at::kDouble ? 1e-12 : 1e-2;
    ASSERT_EQ(actual.sizes(), expected.sizes());
    const at::Tensor difference = (actual.to(at::kDouble) - expected).abs();
    EXPECT_LE((difference / (1 + expected.abs())).max().item<double>(), tolerance);
  }

  const std::unique_ptr<GpuKernels> kernels_ = MakeHostKernels(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Dtype, GpuKernelsTest, ::testing::Values(at::kDouble, at::kBFloat16),
                         [](const auto& info) { return std::string(toString(info.param)); });

TEST_P(GpuKernelsTest, Rotates) {
  constexpr int64_t kHalf = 16;
  const at::Tensor x = Random({37, 3, 80});
  const at::Tensor angle = at::randn({37, kHalf}, at::TensorOptions(at::kDouble));
  const at::Tensor cos = Wide(angle.cos());
  const at::Tensor sin = Wide(angle.sin());
  const at::Tensor before = x.to(at::kDouble, false, /*copy=*/true);
  const auto parts = before.split_with_sizes({kHalf, kHalf, 80 - 2 * kHalf}, 2);
  const at::Tensor c = cos.to(at::kDouble).unsqueeze(1);
  const at::Tensor s = sin.to(at::kDouble).unsqueeze(1);
  kernels_->Rotate(x, cos, sin);
  ExpectNear(x, at::cat({parts[0] * c - parts[1] * s, parts[1] * c + parts[0] * s, parts[2]}, 2));
}

// Rows of items that have a stretch of their own, inherited ones, and a tail elsewhere.
TEST_P(GpuKernelsTest, AttendsToParentsAndOwnRows) {
  constexpr int64_t kRows = 45, kParents = 3, kLength = 11, kHeads = 6, kKvHeads = 2, kDim = 80;
  const at::Tensor query = Random({kRows, kHeads, kDim});
  const at::Tensor key = Random({kRows, kKvHeads, kDim});
  const at::Tensor value = Random({kRows, kKvHeads, kDim});
  // Of one layer among others, as the pass has them.
  const at::Tensor parents = Random({kParents, 2, kLength, kKvHeads, kDim});
  std::mt19937 random(1);
  const auto below = [&](int64_t end) { return static_cast<int64_t>(random() % end); };
  std::vector<int64_t> parent, first, base, split, tail_base, position;
  std::vector<at::Tensor> expected;
  for (int64_t row = 0; row < kRows; ++row) {
    const int64_t last = below(kLength);
    const int64_t changed = below(last + 1);
    const int64_t own_end = changed + below(last + 2 - changed);
    // Rows of the stretch and of the tail, each somewhere among all.
    const int64_t own = below(kRows - kLength) - changed;
    const int64_t own_tail = below(kRows - kLength) - own_end;
    parent.push_back(below(kParents));
    first.push_back(changed);
    base.push_back(own);
    split.push_back(own_end);
    tail_base.push_back(own_tail);
    position.push_back(last);
    for (int64_t head = 0; head < kHeads; ++head) {
      const int64_t kv_head = head / (kHeads / kKvHeads);
      std::vector<at::Tensor> keys, values;
      for (int64_t j = 0; j <= last; ++j) {
        if (j < changed) {
          keys.push_back(parents[parent.back()][0][j][kv_head]);
          values.push_back(parents[parent.back()][1][j][kv_head]);
        } else {
          const int64_t of = j == last ? row : (j < own_end ? own : own_tail) + j;
          keys.push_back(key[of][kv_head]);
          values.push_back(value[of][kv_head]);
        }
      }
      const at::Tensor q = query[row][head].to(at::kDouble);
      const at::Tensor scores = at::mv(at::stack(keys).to(at::kDouble), q) / std::sqrt(kDim);
      expected.push_back(at::mv(at::stack(values).to(at::kDouble).t(), at::softmax(scores, 0)));
    }
  }
  const AttendedRows attended = {.parent = at::tensor(parent),
                                 .first = at::tensor(first),
                                 .base = at::tensor(base),
                                 .split = at::tensor(split),
                                 .tail_base = at::tensor(tail_base),
                                 .position = at::tensor(position)};
  ExpectNear(
      kernels_->Attend(query, key, value, parents.select(1, 0), parents.select(1, 1), attended),
      at::stack(expected).view({kRows, kHeads * kDim}));
}

TEST_P(GpuKernelsTest, NormalisesByTheRootMeanSquare) {
  const at::Tensor x = Random({13, 70});
  const at::Tensor weight = Random({70});
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor expected =
      wide * (wide.square().mean(1, true) + 1e-5).rsqrt() * weight.to(at::kDouble);
  const at::Tensor actual = kernels_->RmsNorm(x, weight, 1e-5);
  // float32 inside, whatever the dtype.
  EXPECT_LE((actual.to(at::kDouble) - expected).abs().max().item<double>(),
            GetParam() == at::kDouble ? 1e-5 : 0.05);
}

TEST_P(GpuKernelsTest, LogSumExps) {
  // Some lanes have nothing, and one row nothing but the greatest.
  for (const int64_t columns : {100, 1000}) {
    at::Tensor logits = Random({9, columns}) * 20;
    logits[3].fill_(-60000);
    logits[3][5] = 2;
    const at::Tensor out = Wide(at::zeros({9, 2}, at::TensorOptions(at::kDouble)));
    kernels_->LogSumExp(logits, out.select(1, 1));
    const at::Tensor expected = at::logsumexp(logits.to(at::kDouble), 1);
    EXPECT_TRUE(at::allclose(out.select(1, 1).to(at::kDouble), expected, 1e-6));
    EXPECT_EQ(out.select(1, 0).abs().max().item<double>(), 0);
  }
}

}  // namespace
}  // namespace epo
