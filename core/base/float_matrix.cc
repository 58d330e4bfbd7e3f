#include "core/base/float_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace epo {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

template <class Number>
Number Load(const char* bytes) {
  Number value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

float FromHalf(uint16_t half) {
  const int exponent = (half >> 10) & 0x1f;
  const int fraction = half & 0x3ff;
  const float sign = (half & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 0x1f) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
}

float FromBFloat16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}

float ToFloat(const char* bytes, NumberFormat format) {
  switch (format) {
    case NumberFormat::kFloat16:
      return FromHalf(Load<uint16_t>(bytes));
    case NumberFormat::kBFloat16:
      return FromBFloat16(Load<uint16_t>(bytes));
    case NumberFormat::kFloat32:
      return Load<float>(bytes);
    case NumberFormat::kFloat64:
      return static_cast<float>(Load<double>(bytes));
  }
  return NAN;
}

}  // namespace

size_t SizeOf(NumberFormat format) {
  switch (format) {
    case NumberFormat::kFloat16:
    case NumberFormat::kBFloat16:
      return 2;
    case NumberFormat::kFloat32:
      return 4;
    case NumberFormat::kFloat64:
      return 8;
  }
  return 1;
}

std::vector<float> ToFloats(std::string_view bytes, NumberFormat format) {
  const size_t size = SizeOf(format);
  std::vector<float> out(bytes.size() / size);
  for (size_t i = 0; i < out.size(); ++i) out[i] = ToFloat(bytes.data() + i * size, format);
  return out;
}

absl::StatusOr<FloatMatrix> MakeMatrix(const std::vector<int64_t>& shape, std::string_view bytes,
                                       NumberFormat format) {
  const std::string shown = absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
  if (shape.empty() || shape.size() > 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("its shape is ", shown, "; give a vector or a matrix of one vector a row"));
  }
  const uint64_t count = bytes.size() / SizeOf(format);
  uint64_t wanted = 1;
  for (const int64_t size : shape) {
    if (size == 0)
      return absl::InvalidArgumentError(absl::StrCat("its shape is ", shown, ", empty"));
    if (size < 0 || __builtin_mul_overflow(wanted, static_cast<uint64_t>(size), &wanted)) {
      return absl::InvalidArgumentError(absl::StrCat("its shape, ", shown, ", is none"));
    }
  }
  if (wanted != count || bytes.size() % SizeOf(format) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("its shape, ", shown, ", takes ", wanted, " numbers of ", SizeOf(format),
                     " bytes, but it holds ", bytes.size(), " bytes of them; is it cut off?"));
  }
  FloatMatrix out;
  out.rows = shape.size() == 2 ? shape[0] : 1;
  out.width = shape.back();
  out.values = ToFloats(bytes, format);
  return out;
}

absl::Status CheckNumbers(const FloatMatrix& matrix) {
  const std::vector<float>& values = matrix.values;
  const auto bad = std::find_if_not(values.begin(), values.end(),
                                    [](float value) { return std::isfinite(value); });
  if (bad != values.end()) {
    const int64_t index = bad - values.begin();
    return absl::InvalidArgumentError(
        absl::StrCat("holds ", *bad, " as float32 in row ", index / matrix.width, " at index ",
                     index % matrix.width, "; all its numbers must be finite"));
  }
  if (std::all_of(values.begin(), values.end(), [](float value) { return value == 0; })) {
    return absl::InvalidArgumentError("is all 0; give a vector with a direction");
  }
  return absl::OkStatus();
}

}  // namespace epo
