/* Two GPUs for a machine that has none: the part of NVIDIA's management library that the server asks. */
#include <stdio.h>

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int* count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) { *device = (void*)(long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void* device, char* uuid, unsigned int size) { snprintf(uuid, size, "GPU-%ld", (long)device); return 0; }
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  memory->total = 80000000000ull;
  memory->used = 10000000000ull * (long)device;
  memory->free = memory->total - memory->used;
  return 0;
}
/* The second one does not tell. */
int nvmlDeviceGetUtilizationRates(void* device, Utilization* utilization) {
  utilization->gpu = 75;
  utilization->memory = 20;
  return (long)device == 1 ? 0 : 3;
}
