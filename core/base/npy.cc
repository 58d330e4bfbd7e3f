// NumPy's .npy: "\x93NUMPY", a version, the length of a header, the header, the numbers. The header
// is a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/float_matrix.h"

namespace epo {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("is no .npy file that can be read: ", what));
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// What stands behind 'key': in the header, without the blanks before it; none without the key.
std::optional<absl::string_view> Entry(absl::string_view header, const std::string& key) {
  for (const char quote : {'\'', '"'}) {
    const std::string name = absl::StrCat(std::string(1, quote), key, std::string(1, quote));
    const size_t found = header.find(name);
    if (found == absl::string_view::npos) continue;
    absl::string_view rest = absl::StripLeadingAsciiWhitespace(header.substr(found + name.size()));
    if (!absl::ConsumePrefix(&rest, ":")) continue;
    return absl::StripLeadingAsciiWhitespace(rest);
  }
  return std::nullopt;
}

absl::StatusOr<NumberFormat> ReadFormat(absl::string_view header) {
  const auto entry = Entry(header, "descr");
  if (!entry.has_value() || entry->empty() || (entry->front() != '\'' && entry->front() != '"')) {
    return Bad("its header names no type of number");
  }
  const absl::string_view type = entry->substr(1, entry->find(entry->front(), 1) - 1);
  if (type == "<f2") return NumberFormat::kFloat16;
  if (type == "<f4") return NumberFormat::kFloat32;
  if (type == "<f8") return NumberFormat::kFloat64;
  return Bad(absl::StrCat("its numbers are '", type.substr(0, 16),
                          "'; float16, float32 and float64 are read, little-endian"));
}

absl::StatusOr<std::vector<int64_t>> ReadShape(absl::string_view header) {
  auto entry = Entry(header, "shape");
  if (!entry.has_value() || !absl::ConsumePrefix(&*entry, "(") ||
      entry->find(')') == absl::string_view::npos) {
    return Bad("its header has no shape");
  }
  std::vector<int64_t> shape;
  const absl::string_view sizes = entry->substr(0, entry->find(')'));
  for (absl::string_view size : absl::StrSplit(sizes, ',', absl::SkipWhitespace())) {
    // NumPy under Python 2 wrote 3L.
    absl::ConsumeSuffix(&size, "L");
    if (!absl::SimpleAtoi(size, &shape.emplace_back())) return Bad("its header's shape is none");
  }
  return shape;
}

}  // namespace

absl::StatusOr<FloatMatrix> ParseNpy(std::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic || bytes.size() < 10) {
    return Bad("it does not begin as one");
  }
  const int version = bytes[6];
  if (version < 1 || version > 3) {
    return Bad(absl::StrCat("its version is ", version, "; 1 to 3 are read"));
  }
  const size_t length_bytes = version == 1 ? 2 : 4;
  if (bytes.size() < 8 + length_bytes) return Bad("it is cut off");
  size_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) {
    length |= static_cast<size_t>(static_cast<unsigned char>(bytes[8 + i])) << (8 * i);
  }
  const std::string_view rest = bytes.substr(8 + length_bytes);
  if (length > rest.size()) return Bad("it is cut off within its header");
  const absl::string_view header = View(rest.substr(0, length));
  const absl::StatusOr<NumberFormat> format = ReadFormat(header);
  if (!format.ok()) return format.status();
  const auto order = Entry(header, "fortran_order");
  if (!order.has_value()) return Bad("its header does not say its order");
  const absl::StatusOr<std::vector<int64_t>> shape = ReadShape(header);
  if (!shape.ok()) return shape.status();
  // A vector is the same in both orders.
  if (!absl::StartsWith(*order, "False") && shape->size() > 1) {
    return Bad("it is in Fortran order; save numpy.ascontiguousarray of it");
  }
  return MakeMatrix(*shape, rest.substr(length), *format);
}

}  // namespace epo
