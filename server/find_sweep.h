// A sweep as its caller may see it.
#ifndef EPO_SERVER_FIND_SWEEP_H_
#define EPO_SERVER_FIND_SWEEP_H_

#include <string>

#include "absl/status/statusor.h"
#include "epo/v1/sweep.pb.h"
#include "server/call_context.h"
#include "server/status.h"
#include "server/store.h"

namespace epo {

// NOT_FOUND for a sweep of another client as for one that does not exist.
inline absl::StatusOr<v1::Sweep> FindSweep(const Store& store, const CallContext& context,
                                           const std::string& id) {
  if (id.empty()) return InvalidFields({{"id", "is required"}});
  absl::StatusOr<v1::Sweep> sweep = store.GetSweep(id);
  if (absl::IsNotFound(sweep.status()) || (sweep.ok() && !context.Sees(*sweep))) {
    return SweepNotFound(id);
  }
  return sweep;
}

}  // namespace epo

#endif  // EPO_SERVER_FIND_SWEEP_H_
