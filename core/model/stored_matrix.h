// Weights as they are stored. Knows no torch.
#ifndef EPO_CORE_MODEL_STORED_MATRIX_H_
#define EPO_CORE_MODEL_STORED_MATRIX_H_

#include <cstdint>

namespace epo {

// A weight as it is stored, [out, in], or a part of one; `stride` elements from row to row.
// Borrowed.
struct StoredMatrix {
  enum class Type { kFloat32, kBFloat16, kFloat16 };
  const void* data = nullptr;
  Type type = Type::kFloat32;
  int64_t out = 0;
  int64_t in = 0;
  int64_t stride = 0;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_STORED_MATRIX_H_
