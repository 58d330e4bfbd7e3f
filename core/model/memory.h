// What is left of the memory that a model's work needs.
#ifndef EPO_CORE_MODEL_MEMORY_H_
#define EPO_CORE_MODEL_MEMORY_H_

#include <cstdint>

#include "core/model/model.h"

namespace epo {

// Bytes that are free now on the model's device; on a CPU, what the system, and the memory limit of
// the control group, still let the process have. The largest number where nobody can tell.
int64_t FreeMemory(const Model& model);

}  // namespace epo

#endif  // EPO_CORE_MODEL_MEMORY_H_
