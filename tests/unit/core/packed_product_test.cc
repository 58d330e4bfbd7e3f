#include "core/model/packed_product.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/model/linear.h"

namespace epo {
namespace {

at::Tensor Multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    PackedProduct::Into into = PackedProduct::Into::kSet, at::Tensor y = {}) {
  if (!y.defined()) y = at::randn({x.size(0), weight.size(0)});
  PackedProduct product({.wide = PackedProduct::ThisCpu().wide});
  product.Multiply(x.const_data_ptr<float>(), x.size(0), Stored(weight),
                   bias.defined() ? bias.const_data_ptr<float>() : nullptr, into,
                   y.mutable_data_ptr<float>(), y.size(1));
  return y;
}

// In float64, of what the stored type holds.
at::Tensor Exact(const at::Tensor& x, const at::Tensor& weight) {
  return at::mm(x.to(at::kDouble), weight.to(at::kDouble).t());
}

void ExpectClose(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_LT((a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>(), 2e-4);
}

// Whole tiles, tails of rows, columns and depth, and several blocks of depth.
TEST(PackedProductTest, EqualsTheExactOneForAnyShapeAndType) {
  for (const auto& [rows, out, in] :
       {std::tuple{12, 32, 64}, {7, 112, 48}, {1, 17, 3}, {13, 200, 577}, {5, 96, 1536}}) {
    const at::Tensor x = at::randn({rows, in});
    const at::Tensor bias = at::randn({out});
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor weight = at::randn({out, in}).to(dtype);
      const at::Tensor exact = Exact(x, weight);
      ExpectClose(Multiply(x, weight, {}), exact);
      ExpectClose(Multiply(x, weight, bias), exact + bias);
      const at::Tensor before = at::randn({rows, out});
      ExpectClose(Multiply(x, weight, {}, PackedProduct::Into::kAdd, before.clone()),
                  exact + before);
      ExpectClose(Multiply(x, weight, bias, PackedProduct::Into::kAdd, before.clone()),
                  exact + before + bias);
    }
  }
}

TEST(PackedProductTest, BackwardEqualsTheExactOne) {
  for (const auto& [rows, out, in] :
       {std::tuple{12, 64, 32}, {7, 48, 112}, {1, 3, 17}, {13, 577, 200}, {5, 1536, 96}}) {
    const at::Tensor gradient = at::randn({rows, out});
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor weight = at::randn({out, in}).to(dtype);
      at::Tensor y = at::empty({rows, in});
      PackedProduct({.wide = PackedProduct::ThisCpu().wide})
          .MultiplyBackward(gradient.const_data_ptr<float>(), rows, Stored(weight),
                            y.mutable_data_ptr<float>(), in);
      ExpectClose(y, at::mm(gradient.to(at::kDouble), weight.to(at::kDouble)));
    }
  }
}

// Tails of twelve rows and of 32 columns, several blocks of depth and of columns.
TEST(PackedProductTest, TheWidthOfVectorsChangesNoBit) {
  if (!PackedProduct::ThisCpu().wide) GTEST_SKIP() << "this CPU has no AVX-512";
  PackedProduct narrow({.wide = false});
  PackedProduct wide({.wide = true});
  for (const int64_t rows : {1, 5, 12, 13, 23, 36}) {
    for (const auto& [out, in] :
         {std::pair{32, 64}, {96, 577}, {200, 1200}, {17, 9}, {16, 3}, {113, 48}}) {
      const at::Tensor x = at::randn({rows, in});
      const at::Tensor bias = at::randn({out});
      const at::Tensor weight = at::randn({out, in}).to(at::kBFloat16);
      for (const auto into : {PackedProduct::Into::kSet, PackedProduct::Into::kAdd}) {
        const at::Tensor before = at::randn({rows, out});
        const at::Tensor a = before.clone();
        const at::Tensor b = before.clone();
        for (const auto& [product, y] : {std::pair{&narrow, a}, {&wide, b}}) {
          product->Multiply(x.const_data_ptr<float>(), rows, Stored(weight),
                            bias.const_data_ptr<float>(), into, y.mutable_data_ptr<float>(), out);
        }
        EXPECT_TRUE(a.equal(b)) << rows << " x " << out << " x " << in;
        ExpectClose(b, Exact(x, weight) + bias +
                           (into == PackedProduct::Into::kAdd ? before : at::zeros_like(before)));
      }
      const at::Tensor gradient = at::randn({rows, out});
      const at::Tensor a = at::empty({rows, in});
      const at::Tensor b = at::empty({rows, in});
      for (const auto& [product, y] : {std::pair{&narrow, a}, {&wide, b}}) {
        product->MultiplyBackward(gradient.const_data_ptr<float>(), rows, Stored(weight),
                                  y.mutable_data_ptr<float>(), in);
      }
      EXPECT_TRUE(a.equal(b)) << rows << " x " << out << " x " << in;
    }
  }
}

// Against exact products of what is left once x is rounded as the tiles round it.
TEST(PackedProductTest, TilesEqualTheExactOneAndARowsBitsDependOnNothingElse) {
  if (!PackedProduct::ThisCpu().tiles) GTEST_SKIP() << "this CPU has no AMX";
  PackedProduct product;
  for (const int64_t rows : {1, 15, 32, 33, 70}) {
    for (const auto& shape : {std::pair{32, 64},
                              {96, 577},
                              {200, 3200},
                              {17, 9},
                              {16, 3},
                              {113, 48},
                              {50, 1536},
                              {112, 1537}}) {
      const int64_t out = shape.first;
      const int64_t in = shape.second;
      const at::Tensor x = at::randn({rows, in});
      const at::Tensor rounded = x.to(at::kBFloat16);
      const at::Tensor bias = at::randn({out});
      // Part of a larger one: rows do not stand one after another.
      const at::Tensor weight = at::randn({out, in + 6}).to(at::kBFloat16).narrow(1, 2, in);
      for (const auto into : {PackedProduct::Into::kSet, PackedProduct::Into::kAdd}) {
        const at::Tensor before = at::randn({rows, out + 3});
        const at::Tensor y = before.clone();
        const auto multiply = [&](int64_t first, int64_t count, const at::Tensor& to) {
          product.Multiply(x.const_data_ptr<float>() + first * in, count, Stored(weight),
                           bias.const_data_ptr<float>(), into,
                           to.mutable_data_ptr<float>() + first * (out + 3), out + 3);
        };
        multiply(0, rows, y);
        at::Tensor exact = Exact(rounded, weight) + bias;
        if (into == PackedProduct::Into::kAdd) exact = exact + before.narrow(1, 0, out);
        const double scale = std::sqrt(static_cast<double>(in));
        ExpectClose(y.narrow(1, 0, out) / scale, exact / scale);
        EXPECT_TRUE(y.narrow(1, out, 3).equal(before.narrow(1, out, 3)));
        const at::Tensor alone = before.clone();
        for (int64_t r = 0; r < rows; ++r) multiply(r, 1, alone);
        EXPECT_TRUE(alone.equal(y)) << rows << " x " << out << " x " << in;
      }
      const at::Tensor gradient = at::randn({rows, out});
      const at::Tensor y = at::empty({rows, in});
      product.MultiplyBackward(gradient.const_data_ptr<float>(), rows, Stored(weight),
                               y.mutable_data_ptr<float>(), in);
      ExpectClose(y, at::mm(gradient.to(at::kBFloat16).to(at::kDouble), weight.to(at::kDouble)));
    }
  }
}

TEST(PackedProductTest, WritesOnlyItsOwnColumns) {
  const at::Tensor x = at::randn({7, 40});
  const at::Tensor weight = at::randn({21, 40});
  const at::Tensor wide = at::zeros({7, 64});
  PackedProduct product;
  product.Multiply(x.const_data_ptr<float>(), 7, Stored(weight), nullptr, PackedProduct::Into::kSet,
                   wide.mutable_data_ptr<float>() + 8, 64);
  ExpectClose(wide.narrow(1, 8, 21), Exact(x, weight));
  EXPECT_EQ(wide.narrow(1, 0, 8).abs().max().item<float>(), 0);
  EXPECT_EQ(wide.narrow(1, 29, 35).abs().max().item<float>(), 0);
}

TEST(PackedProductTest, ARowsBitsDependOnNothingElse) {
  const at::Tensor x = at::randn({97, 600});
  const at::Tensor weight = at::randn({50, 600});
  const at::Tensor all = Multiply(x, weight, {});
  for (const int64_t rows : {1, 2, 5, 6, 11, 64}) {
    EXPECT_TRUE(Multiply(x.narrow(0, 3, rows), weight, {}).equal(all.narrow(0, 3, rows)));
  }
  EXPECT_TRUE(Multiply(x, weight.narrow(0, 7, 30), {}).equal(all.narrow(1, 7, 30)));
}

}  // namespace
}  // namespace epo
