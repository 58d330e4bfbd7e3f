// What is said of initial prompts that nobody gave.
#include "server/job_request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/model/model.h"

namespace epo {
namespace {

class JobRequestTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float32"});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }

  void Start(const std::vector<std::vector<TokenId>>& prompts) {
    v1::JobSpec& spec = *request_.mutable_spec();
    spec.mutable_objective()->mutable_neuron()->set_layer(1);
    spec.set_tokens(2);
    spec.set_top_k(16);
    spec.set_population(static_cast<int>(prompts.size()));
    for (const auto& prompt : prompts) {
      v1::TokenIds& ids = *spec.add_initial_prompts()->mutable_ids();
      ids.mutable_ids()->Add(prompt.begin(), prompt.end());
    }
  }
  std::string Refusal(const std::string& initial_job) {
    const auto spec = CheckJobRequest(request_, converter_, limits_, initial_job);
    return spec.ok() ? "accepted" : std::string(spec.status().message());
  }

  static inline const Model* model_ = nullptr;
  Converter converter_{*model_};
  Limits limits_;
  v1::CreateJobRequest request_;
};

TEST_F(JobRequestTest, PointsThatBreakConstraintsAreTheirJobs) {
  Start({{10, 11}, {10, 12}, {13, 14}, {13, 14}, {15, 16}});
  EXPECT_EQ(Refusal("j1"), "accepted");
  v1::Constraints& constraints = *request_.mutable_spec()->mutable_constraints();
  for (const int id : {10, 14}) constraints.add_banned_ids(id);
  EXPECT_EQ(Refusal("j1"),
            "spec.initial_job: names the job \"j1\", whose frontier does not do: of 4 points 3 "
            "break constraints.banned_ids");
  EXPECT_EQ(Refusal("").find("spec.initial_prompts[0]: holds the id 10 at position 0"), 0)
      << Refusal("");
  constraints.Clear();
  constraints.add_frozen_positions(0);
  EXPECT_EQ(Refusal("j1"),
            "spec.initial_job: names the job \"j1\", whose frontier does not do: of 4 points 2 "
            "break constraints.frozen_positions");
}

TEST_F(JobRequestTest, OtherFaultsOfPointsAreToldOnce) {
  Start({{10, 11}, {10, 1 << 20}, {13, 1 << 20}});
  EXPECT_EQ(Refusal("j1").find("spec.initial_job: names the job \"j1\", whose frontier does not "
                               "do: of 3 points 2 cannot be used (one id 1048576 at position 1 "),
            0)
      << Refusal("j1");
}

}  // namespace
}  // namespace epo
