#include "core/model/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace epo {
namespace {

// What can be seen of it without a GPU: torch's CUDA half is in the process, ours finds in it all
// that it leaves open, and the kernels compile.
TEST(DeviceTest, CudaLibrariesLoad) {
  EXPECT_EQ(MakeRecorder(c10::Device(c10::kCPU)), nullptr);
  const auto device = ResolveDevice("cuda:0");
  if (!device.ok()) {
    EXPECT_EQ(device.status().message(), "device cuda:0: no CUDA device is visible");
    EXPECT_EQ(MakeRecorder(c10::Device(c10::kCUDA, 0)), nullptr);
  }
  EXPECT_GT(at::detail::getCUDAHooks().versionCUDART(), 0);
  ASSERT_EQ(LoadOurCudaLibrary(), "");
  const auto program = std::filesystem::read_symlink("/proc/self/exe");
  void* library = dlopen((program.parent_path() / "libepo_cuda.so").c_str(), RTLD_NOW);
  ASSERT_NE(library, nullptr) << dlerror();
  auto* compile = reinterpret_cast<size_t (*)(c10::ScalarType, int64_t, int)>(
      dlsym(library, "EpoCompileCudaKernels"));
  ASSERT_NE(compile, nullptr);
  for (const c10::ScalarType dtype : {c10::kDouble, c10::kFloat, c10::kBFloat16, c10::kHalf}) {
    for (const int capability : {80, 90, 120}) {
      for (const int64_t head_dim : {20, 64, 80}) {
        EXPECT_GT(compile(dtype, head_dim, capability), 1000);
      }
    }
  }
}

}  // namespace
}  // namespace epo
