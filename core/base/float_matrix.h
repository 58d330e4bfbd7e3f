// A small matrix of float32 numbers read from foreign bytes: the vectors that objectives name.
#ifndef EPO_CORE_BASE_FLOAT_MATRIX_H_
#define EPO_CORE_BASE_FLOAT_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epo {

struct FloatMatrix {
  // A vector is a matrix of one row.
  int64_t rows = 0;
  int64_t width = 0;
  // [rows, width], row after row.
  std::vector<float> values;
};

// How a file stores a number; all little-endian.
enum class NumberFormat { kFloat16, kBFloat16, kFloat32, kFloat64 };

// Bytes of one number.
size_t SizeOf(NumberFormat format);

// The numbers of `bytes`, whose size must be a multiple of SizeOf(format), rounded to float32.
std::vector<float> ToFloats(std::string_view bytes, NumberFormat format);

// The matrix of a shape of one or two dimensions whose numbers are `bytes`. INVALID_ARGUMENT for
// another number of dimensions, an empty one, or when the bytes do not fit the shape.
absl::StatusOr<FloatMatrix> MakeMatrix(const std::vector<int64_t>& shape, std::string_view bytes,
                                       NumberFormat format);

// INVALID_ARGUMENT with what is wrong when a number is not finite or all are 0.
absl::Status CheckNumbers(const FloatMatrix& matrix);

// Reads a NumPy .npy file, versions 1 to 3: float16, float32 or float64, little-endian, in C order,
// of one or two dimensions. INVALID_ARGUMENT says what is wrong or not supported.
absl::StatusOr<FloatMatrix> ParseNpy(std::string_view bytes);

}  // namespace epo

#endif  // EPO_CORE_BASE_FLOAT_MATRIX_H_
