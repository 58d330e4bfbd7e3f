// Uploaded vectors, by names that follow from their content.
#ifndef EPO_SERVER_VECTORS_H_
#define EPO_SERVER_VECTORS_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "epo/v1/service.pb.h"
#include "server/call_context.h"
#include "server/convert_objective.h"
#include "server/limits.h"
#include "server/storage_guard.h"
#include "server/store.h"

namespace epo {

// Thread-safe.
class Vectors final : public VectorSource {
 public:
  // `store` must outlive this.
  Vectors(Store& store, const Limits& limits) : store_(store), limits_(limits) {}

  // Keeps the file's numbers, surviving power loss. INVALID_ARGUMENT for a file that cannot be
  // taken; RESOURCE_EXHAUSTED when it is too large or the client has too many; what `storage` says
  // when the disk has no room for a new one.
  absl::StatusOr<v1::UploadedVector> Upload(const CallContext& context, const StorageGuard& storage,
                                            const v1::UploadVectorRequest& request);

  absl::StatusOr<VectorValues> Row(const std::string& name, int row) const override;

 private:
  Store& store_;
  const Limits limits_;

  // Rows that objectives hold, so that many jobs share one.
  mutable absl::Mutex mutex_;
  mutable absl::flat_hash_map<std::pair<std::string, int>, std::weak_ptr<const std::vector<float>>>
      rows_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace epo

#endif  // EPO_SERVER_VECTORS_H_
