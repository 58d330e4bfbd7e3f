#include "core/attribute/attribute.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/substitutes.h"
#include "tests/unit/core/targets.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

class AttributeTest : public ::testing::Test {
 protected:
  AttributeTest() {
    model_ = *Model::Load(ParityModel("phi-tiny"), {"cpu", "float64"});
    evaluator_ = Evaluator::Create(*model_, {});
    allowed_ = MakeAllowedTokens(*model_, false);
    target_ = NeuronTarget(*model_, 2, 5);
    const PrepareRequest request{{17, 3, 200, 41, 9}, target_, true};
    parent_ = (*evaluator_->Prepare({&request, 1}))[0];
  }

  std::unique_ptr<Model> model_;
  std::unique_ptr<Evaluator> evaluator_;
  std::shared_ptr<const AllowedTokens> allowed_;
  std::shared_ptr<const Target> target_;
  std::shared_ptr<const Prepared> parent_;
};

TEST_F(AttributeTest, ScoresWhatTheGradientPromisesMost) {
  const auto found = AttributeTokens(*evaluator_, *parent_, 1, 5, 6, *allowed_);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), 4U);
  for (int position = 1; position < 5; ++position) {
    const std::vector<Substitute>& here = (*found)[position - 1];
    ASSERT_EQ(here.size(), 6U);
    std::set<TokenId> tokens;
    for (size_t rank = 0; rank < here.size(); ++rank) {
      EXPECT_NE(here[rank].token, parent_->prompt()[position]);
      EXPECT_TRUE(tokens.insert(here[rank].token).second);
      Prompt whole = parent_->prompt();
      whole[position] = here[rank].token;
      const PrepareRequest request{whole, target_, false};
      const Score score = (*evaluator_->Prepare({&request, 1}))[0]->score();
      EXPECT_NEAR(here[rank].score.target, score.target, 1e-6);
      EXPECT_NEAR(here[rank].score.cross_entropy, score.cross_entropy, 1e-5);
    }
    // Of all other tokens none promises more than the last of these.
    const at::Tensor gradient =
        TokenGradient(*model_, static_cast<const PreparedPrompt&>(*parent_), position, 0);
    const float* promise = gradient.const_data_ptr<float>();
    for (const TokenId token : allowed_->ids) {
      if (tokens.contains(token) || token == parent_->prompt()[position]) continue;
      EXPECT_GE(promise[token], promise[here.back().token]);
    }
  }
}

TEST_F(AttributeTest, TakesWhatIsAllowed) {
  const auto few = AllowTokens(*model_, {3, 4, 5});
  const auto found = AttributeTokens(*evaluator_, *parent_, 0, 5, 32, *few);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)[0].size(), 3U);
  EXPECT_EQ((*found)[1].size(), 2U);
  EXPECT_TRUE(AttributeTokens(*evaluator_, *parent_, 2, 2, 1, *few)->empty());
  for (const auto& [first, last, count] :
       {std::array{-1, 2, 1}, std::array{0, 6, 1}, std::array{3, 2, 1}, std::array{0, 1, 0}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        AttributeTokens(*evaluator_, *parent_, first, last, count, *few).status()));
  }
}

}  // namespace
}  // namespace epo
