// What CreateSweep asks of a request before anything is kept of it, and the jobs that it means.
#ifndef EPO_SERVER_SWEEP_REQUEST_H_
#define EPO_SERVER_SWEEP_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "epo/v1/service.pb.h"
#include "server/convert.h"
#include "server/limits.h"

namespace epo {

// The searches of a sweep: each objective under each seed.
struct SweepPlan {
  // What they have in common; its objective and seed have no meaning.
  SearchSpec base;
  // In the order of the sweep, as they came and as the core has them: as many of each.
  std::vector<v1::Objective> wire_objectives;
  std::vector<Objective> objectives;
  std::vector<uint64_t> seeds;

  size_t jobs() const { return objectives.size() * seeds.size(); }
  // The search of the job with this sweep_index.
  SearchSpec Search(size_t index) const;
};

// The sweep that `request` asks for; INVALID_ARGUMENT with every bad field, see InvalidFields(),
// and nothing expanded that is over a limit. Thread-safe.
absl::StatusOr<SweepPlan> CheckSweepRequest(const v1::CreateSweepRequest& request,
                                            const Converter& converter, const Limits& limits);

}  // namespace epo

#endif  // EPO_SERVER_SWEEP_REQUEST_H_
