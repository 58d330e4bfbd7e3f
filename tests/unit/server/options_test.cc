#include "server/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace epo {
namespace {

// What is said of these flags, empty for nothing.
std::string Refusal(std::vector<const char*> flags) {
  flags.insert(flags.begin(), {"epo-server", "--model", EPO_PHI_TINY});
  int exit_code = 0;
  testing::internal::CaptureStderr();
  const auto options = ParseOptions(static_cast<int>(flags.size()), flags.data(), &exit_code);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(exit_code, options.has_value() ? 0 : 2);
  return said;
}

TEST(OptionsTest, ADeviceIsAutoCpuOrCudaWithANumber) {
  for (const char* good : {"auto", "cpu", "cuda:0", "cuda:7"}) {
    EXPECT_EQ(Refusal({"--state-dir", "x", "--device", good}), "");
  }
  for (const char* bad : {"tpu", "cuda:x", "cuda", "cuda:", "cuda:-1", ""}) {
    const std::string said = Refusal({"--state-dir", "x", "--device", bad});
    EXPECT_NE(said.find("--device: "), std::string::npos) << said;
    EXPECT_NE(said.find("is none of auto, cpu and cuda:N"), std::string::npos) << said;
  }
}

TEST(OptionsTest, AnEmptyStateDirectoryIsNoMissingOne) {
  const std::string said = Refusal({"--state-dir", ""});
  EXPECT_NE(said.find("--state-dir: is empty; give a directory"), std::string::npos) << said;
  EXPECT_EQ(said.find("HOME"), std::string::npos) << said;
}

TEST(OptionsTest, MetricsAreServedOnIPv4Alone) {
  EXPECT_EQ(Refusal({"--state-dir", "x", "--metrics-listen", "127.0.0.1:0"}), "");
  const std::string said = Refusal({"--state-dir", "x", "--metrics-listen", "[::1]:9464"});
  EXPECT_NE(said.find("IPv4 alone"), std::string::npos) << said;
}

}  // namespace
}  // namespace epo
