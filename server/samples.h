// What is looked up when somebody reads the metrics.
#ifndef EPO_SERVER_SAMPLES_H_
#define EPO_SERVER_SAMPLES_H_

#include <filesystem>
#include <vector>

#include "server/metrics.h"
#include "server/store.h"
#include "server/worker_pool.h"

namespace epo {

// This process: memory, processor time, descriptors, threads, start.
std::vector<Sample> ProcessSamples();

// Jobs by state, as persisted; the store's bytes and the room left beside them.
std::vector<Sample> StoreSamples(const Store& store, const std::filesystem::path& dir);

// Whether calls are served, and how many wait for a thread.
std::vector<Sample> ServerSamples(const WorkerPool& pool, bool serving);

}  // namespace epo

#endif  // EPO_SERVER_SAMPLES_H_
