#include "core/model/allowed_tokens.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/unit/core/temp_dir.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

// Ordinary tokens 0..511, special 512, ordinary 513; embedding rows without a token, 514..519.
TEST(AllowedTokensTest, LeavesOutSpecialTokensAndRowsWithoutToken) {
  const TempDir dir;
  WriteTinyPhi(dir.path());
  const auto model = Model::Load(dir.path(), {"cpu", "float32"});
  ASSERT_TRUE(model.ok()) << model.status();
  for (const bool allow_special : {false, true}) {
    std::vector<TokenId> expected(512);
    std::iota(expected.begin(), expected.end(), 0);
    if (allow_special) expected.push_back(512);
    expected.push_back(513);
    const auto allowed = MakeAllowedTokens(**model, allow_special);
    EXPECT_EQ(allowed->ids, expected);
    ASSERT_EQ(allowed->mask.size(), 520U);
    std::vector<TokenId> masked;
    for (TokenId id = 0; id < 520; ++id) {
      if (allowed->mask[id] != 0) masked.push_back(id);
    }
    EXPECT_EQ(masked, expected);
  }
}

TEST(AllowedTokensTest, StopsAtTheLastEmbeddingRow) {
  const TempDir dir;
  WriteTinyPhi(dir.path());
  nlohmann::json config = TinyPhiConfig();
  config["vocab_size"] = 300;
  dir.Write("config.json", config.dump());
  StoredTensors tensors = TinyPhiTensors();
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    tensors[name] = RandomTensor(name, {300, 8});
  }
  tensors["lm_head.bias"] = RandomTensor("lm_head.bias", {300});
  dir.Write("model.safetensors", Safetensors(tensors));
  const auto model = Model::Load(dir.path(), {"cpu", "float32"});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto allowed = MakeAllowedTokens(**model, true);
  EXPECT_EQ(allowed->ids.size(), 300U);
  EXPECT_EQ(allowed->ids.back(), 299);
  EXPECT_EQ(allowed->mask.size(), 300U);
}

// So that a draw of an index is a draw of an id.
TEST(AllowedTokensTest, IsTheIdentityWithoutHoles) {
  const auto model = Model::Load(ParityModel("phi-tiny"), {"cpu", "float32"});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto allowed = MakeAllowedTokens(**model, false);
  std::vector<TokenId> expected(512);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(allowed->ids, expected);
}

}  // namespace
}  // namespace epo
