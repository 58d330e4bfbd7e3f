// One safetensors file, memory-mapped or in memory, and checked.
#ifndef EPO_CORE_MODEL_SAFETENSORS_H_
#define EPO_CORE_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epo {

// A tensor within a mapped file; `data` lives as long as the file object.
struct TensorView {
  // As the file spells it: "F64", "F32", "F16", "BF16", ...
  std::string dtype;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

// Immutable and thread-safe once open. The file must not be truncated while it is mapped.
class SafetensorsFile {
 public:
  // Maps `path` and checks the whole header: INVALID_ARGUMENT names the file and the tensor for a
  // header that runs past the end, is not JSON, or whose tensors overlap, leave holes, reach
  // outside the file or do not have the size that their shape and dtype say.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(
      const std::filesystem::path& path);
  // The same of a file's content. Errors name no file.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> FromBytes(std::string bytes);

  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // nullptr when there is none of that name.
  const TensorView* Find(std::string_view name) const;
  // Of all tensors, sorted.
  std::vector<std::string> Names() const;
  // Empty for one in memory.
  const std::filesystem::path& path() const { return path_; }
  // The header's JSON, as in the file.
  std::string_view header() const { return header_; }

 private:
  SafetensorsFile() = default;

  absl::Status Read(const std::byte* bytes, size_t size);

  std::filesystem::path path_;
  std::string bytes_;
  void* map_ = nullptr;
  size_t size_ = 0;
  std::string_view header_;
  absl::flat_hash_map<std::string, TensorView> tensors_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_SAFETENSORS_H_
