// The weights of a checkpoint directory: one safetensors file, or the shards that an index names.
#ifndef EPO_CORE_MODEL_CHECKPOINT_H_
#define EPO_CORE_MODEL_CHECKPOINT_H_

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/model/safetensors.h"

namespace epo {

// Immutable and thread-safe once open.
class Checkpoint {
 public:
  struct Tensor {
    TensorView view;
    std::shared_ptr<const SafetensorsFile> file;
  };

  // Opens `dir`/model.safetensors, or else every shard of `dir`/model.safetensors.index.json.
  // Errors as SafetensorsFile::Open; NOT_FOUND names the missing shard; INVALID_ARGUMENT an index
  // that is malformed or names a tensor that its shard lacks.
  static absl::StatusOr<Checkpoint> Open(const std::filesystem::path& dir);

  // NOT_FOUND names the tensor and the file that should hold it.
  absl::StatusOr<Tensor> Find(const std::string& name) const;

  // The open files, in the order of their names.
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }

 private:
  std::filesystem::path source_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_CHECKPOINT_H_
