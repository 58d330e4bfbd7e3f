#include "server/gpu_samples.h"

#include <dlfcn.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

namespace epo {
namespace {

// The part of nvml.h that is used here; NVML keeps the ABI of these versioned symbols.
using Device = struct NvmlDevice*;
struct Memory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): as in nvml.h
};
struct Utilization {
  // Percent of the last sampling period.
  unsigned int gpu, memory;
};
constexpr int kSuccess = 0;

class Nvml {
 public:
  // Null when it cannot be used.
  static std::shared_ptr<Nvml> Open() {
    // Never unloaded: the library does not promise to survive that.
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nullptr;
    auto nvml = std::make_shared<Nvml>();
    int (*init)() = nullptr;
    int (*count)(unsigned int*) = nullptr;
    int (*by_index)(unsigned int, Device*) = nullptr;
    int (*uuid)(Device, char*, unsigned int) = nullptr;
    unsigned int devices = 0;
    if (!Load(library, "nvmlInit_v2", init) || !Load(library, "nvmlDeviceGetCount_v2", count) ||
        !Load(library, "nvmlDeviceGetHandleByIndex_v2", by_index) ||
        !Load(library, "nvmlDeviceGetUUID", uuid) ||
        !Load(library, "nvmlDeviceGetMemoryInfo", nvml->memory_) ||
        !Load(library, "nvmlDeviceGetUtilizationRates", nvml->utilization_) || init() != kSuccess ||
        count(&devices) != kSuccess) {
      return nullptr;
    }
    for (unsigned int i = 0; i < devices; ++i) {
      Device device = nullptr;
      std::array<char, 96> name{};
      if (by_index(i, &device) != kSuccess) continue;
      if (uuid(device, name.data(), name.size()) != kSuccess) name[0] = '\0';
      nvml->devices_.push_back({device, {{"device", std::to_string(i)}, {"uuid", name.data()}}});
    }
    return nvml->devices_.empty() ? nullptr : nvml;
  }

  std::vector<Sample> Read() const {
    Sample used{"epo_device_memory_used_bytes", "Memory of the GPU in use, by whatever process"};
    Sample size{"epo_device_memory_size_bytes", "Memory of the GPU"};
    Sample busy{"epo_device_utilization_ratio",
                "Share of the last moment in which a kernel ran on the GPU"};
    for (const Gpu& gpu : devices_) {
      Memory memory{};
      if (memory_(gpu.device, &memory) == kSuccess) {
        used.values.push_back({gpu.labels, static_cast<double>(memory.used)});
        size.values.push_back({gpu.labels, static_cast<double>(memory.total)});
      }
      Utilization utilization{};
      if (utilization_(gpu.device, &utilization) == kSuccess) {
        busy.values.push_back({gpu.labels, utilization.gpu / 100.0});
      }
    }
    return {used, size, busy};
  }

 private:
  template <class Function>
  static bool Load(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
  }

  struct Gpu {
    Device device;
    std::vector<std::pair<std::string, std::string>> labels;
  };

  int (*memory_)(Device, Memory*) = nullptr;
  int (*utilization_)(Device, Utilization*) = nullptr;
  std::vector<Gpu> devices_;
};

}  // namespace

std::function<std::vector<Sample>()> OpenGpuSamples() {
  std::shared_ptr<Nvml> nvml = Nvml::Open();
  if (nvml == nullptr) return nullptr;
  return [nvml = std::move(nvml)] { return nvml->Read(); };
}

}  // namespace epo
