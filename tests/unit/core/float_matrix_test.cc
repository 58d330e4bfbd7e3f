#include "core/base/float_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

namespace epo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class Number>
std::string Bytes(std::initializer_list<Number> numbers) {
  std::string bytes(numbers.size() * sizeof(Number), '\0');
  std::memcpy(bytes.data(), numbers.begin(), bytes.size());
  return bytes;
}

std::string Npy(int version, std::string header, const std::string& data) {
  header += '\n';
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
    out += static_cast<char>(header.size() >> (8 * i));
  }
  return out + header + data;
}

std::string Header(const std::string& type, const std::string& shape,
                   const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

std::string WhyNot(const std::string& file) {
  const auto matrix = ParseNpy(file);
  return matrix.ok() ? "" : std::string(matrix.status().message());
}

TEST(FloatMatrixTest, ReadsEachVersionAndType) {
  const std::string data = Bytes<float>({1, -2.5F, 3, 4, 5, 6});
  for (const int version : {1, 2, 3}) {
    const auto matrix = ParseNpy(Npy(version, Header("<f4", "(2, 3)"), data));
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    EXPECT_EQ(matrix->rows, 2);
    EXPECT_EQ(matrix->width, 3);
    EXPECT_THAT(matrix->values, ElementsAre(1, -2.5F, 3, 4, 5, 6));
  }
  const auto doubles = ParseNpy(Npy(1, Header("<f8", "(2,)"), Bytes<double>({0.1, -1e30})));
  ASSERT_TRUE(doubles.ok());
  EXPECT_EQ(doubles->rows, 1);
  EXPECT_THAT(doubles->values, ElementsAre(0.1F, -1e30F));
  // 1, -2, the least subnormal, 65504, 0.
  const auto halves = ParseNpy(
      Npy(1, Header("<f2", "(5,)"), Bytes<uint16_t>({0x3c00, 0xc000, 0x0001, 0x7bff, 0x8000})));
  ASSERT_TRUE(halves.ok());
  EXPECT_THAT(halves->values, ElementsAre(1, -2, std::ldexp(1.0F, -24), 65504, 0));
  // A vector has no order.
  EXPECT_TRUE(ParseNpy(Npy(1, Header("<f4", "(6,)", "True"), data)).ok());
}

TEST(FloatMatrixTest, ReadsBFloat16) {
  EXPECT_THAT(ToFloats(Bytes<uint16_t>({0x3f80, 0xc020, 0x4049}), NumberFormat::kBFloat16),
              ElementsAre(1, -2.5F, 3.140625F));
}

TEST(FloatMatrixTest, SaysWhatItCannotRead) {
  const std::string data = Bytes<float>({1, 2, 3, 4, 5, 6});
  EXPECT_THAT(WhyNot(""), HasSubstr("does not begin"));
  EXPECT_THAT(WhyNot("PK\x03\x04 a .npz, that is a zip"), HasSubstr("does not begin"));
  EXPECT_THAT(WhyNot(Npy(4, Header("<f4", "(6,)"), data)), HasSubstr("version is 4"));
  EXPECT_THAT(WhyNot(Npy(1, Header(">f4", "(6,)"), data)), HasSubstr("'>f4'"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<i4", "(6,)"), data)), HasSubstr("'<i4'"));
  EXPECT_THAT(WhyNot(Npy(1, Header("|O", "(6,)"), data)), HasSubstr("'|O'"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(2, 3)", "True"), data)), HasSubstr("Fortran order"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(1, 2, 3)"), data)), HasSubstr("[1, 2, 3]"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "()"), data)), HasSubstr("shape is []"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(0,)"), "")), HasSubstr("empty"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(-1, -6)"), data)), HasSubstr("is none"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(4294967296, 4294967296)"), data)),
              HasSubstr("is none"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(7,)"), data)), HasSubstr("cut off"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "(6,)"), data + "x")), HasSubstr("25 bytes"));
  EXPECT_THAT(WhyNot(Npy(1, Header("<f4", "6"), data)), HasSubstr("no shape"));
  EXPECT_THAT(WhyNot(Npy(1, "{}", data)), HasSubstr("no type"));
  EXPECT_THAT(WhyNot(Npy(1, "{'descr': '<f4', 'shape': (6,)}", data)), HasSubstr("its order"));
  const std::string whole = Npy(2, Header("<f4", "(2, 3)"), data);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(WhyNot(whole.substr(0, size)), "") << size;
  }
}

TEST(FloatMatrixTest, NumbersMustBeFiniteAndNotAllZero) {
  const auto check = [](std::vector<float> values) {
    return std::string(
        CheckNumbers({.rows = 2, .width = 2, .values = std::move(values)}).message());
  };
  EXPECT_EQ(check({0, 0, 0, 1}), "");
  EXPECT_THAT(check({0, -0.0F, 0, 0}), HasSubstr("all 0"));
  EXPECT_THAT(check({0, 1, NAN, 1}), HasSubstr("in row 1 at index 0"));
  EXPECT_THAT(check({0, -INFINITY, 1, 1}), HasSubstr("-inf as float32 in row 0 at index 1"));
  // Too large for float32.
  const auto huge = ParseNpy(Npy(1, Header("<f8", "(2,)"), Bytes<double>({1e39, 1})));
  ASSERT_TRUE(huge.ok());
  EXPECT_FALSE(CheckNumbers(*huge).ok());
}

}  // namespace
}  // namespace epo
