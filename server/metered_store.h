// Counts what the store does.
#ifndef EPO_SERVER_METERED_STORE_H_
#define EPO_SERVER_METERED_STORE_H_

#include <memory>

#include "server/metrics.h"
#include "server/store.h"

namespace epo {

// `store`, with its commits, its refusals and what they say of jobs counted in `metrics`, which
// must outlive it. So a job counts as created, advanced or ended once that is persisted, and once
// only.
std::unique_ptr<Store> MeterStore(std::unique_ptr<Store> store, Metrics& metrics);

}  // namespace epo

#endif  // EPO_SERVER_METERED_STORE_H_
