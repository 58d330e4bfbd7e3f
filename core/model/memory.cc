#include "core/model/memory.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "core/model/weights.h"

namespace epo {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number that a file of the kernel's consists of; `otherwise` when there is none ("max").
int64_t ReadNumber(const char* path, int64_t otherwise) {
  std::ifstream file(path);
  int64_t number = 0;
  return file >> number ? number : otherwise;
}

// The number behind a name at the beginning of a line; `otherwise` when there is none.
int64_t ReadNamed(const char* path, const std::string& wanted, int64_t otherwise) {
  std::ifstream file(path);
  std::string name;
  int64_t number = 0;
  std::string unit;
  while (file >> name >> number) {
    if (name == wanted) return number;
    std::getline(file, unit);
  }
  return otherwise;
}

int64_t SystemMemory() {
  const int64_t kibibytes = ReadNamed("/proc/meminfo", "MemAvailable:", kUnlimited);
  return kibibytes == kUnlimited ? kUnlimited : kibibytes * 1024;
}

// In a container the control group's own files stand at the root.
int64_t GroupMemory() {
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max", kUnlimited);
  if (limit == kUnlimited) return kUnlimited;
  // Of what the group uses, the kernel gives up files that nobody has read of late.
  const int64_t used = ReadNumber("/sys/fs/cgroup/memory.current", 0) -
                       ReadNamed("/sys/fs/cgroup/memory.stat", "inactive_file", 0);
  return std::max<int64_t>(0, limit - used);
}

}  // namespace

int64_t FreeMemory(const Model& model) {
  const c10::Device device = model.weights().device();
  if (device.is_cpu()) return std::min(SystemMemory(), GroupMemory());
  try {
    return static_cast<int64_t>(
        c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first);
  } catch (const c10::Error&) {
    return kUnlimited;
  }
}

}  // namespace epo
