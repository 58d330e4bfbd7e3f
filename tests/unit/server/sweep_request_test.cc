// What CreateSweep takes, and the searches that it makes of it. phi-tiny has 4 layers of 256
// neurons.
#include "server/sweep_request.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/model/model.h"
#include "google/rpc/error_details.pb.h"
#include "server/clock.h"
#include "server/status.h"

namespace epo {
namespace {

class SweepRequestTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = Model::Load(EPO_PHI_TINY, {.device = "cpu", .dtype = "float32"});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }

  v1::SweepSpec& spec() { return *request_.mutable_spec(); }
  void AddNeurons(int layer, int first, int last) {
    v1::NeuronRange& range = *spec().add_neurons();
    range.set_layer(layer);
    range.set_first(first);
    range.set_last(last);
  }
  v1::Objective& AddObjective(int layer, int neuron) {
    v1::Objective& objective = *spec().add_objectives();
    objective.mutable_neuron()->set_layer(layer);
    objective.mutable_neuron()->set_neuron(neuron);
    return objective;
  }

  absl::StatusOr<SweepPlan> Check() { return CheckSweepRequest(request_, converter_, limits_); }

  // "field: what; field: what".
  std::string Refusal() {
    const absl::StatusOr<SweepPlan> plan = Check();
    if (plan.ok()) return "accepted";
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
    const auto payload = plan.status().GetPayload("type.googleapis.com/google.rpc.BadRequest");
    google::rpc::BadRequest bad;
    EXPECT_TRUE(bad.ParseFromString(std::string(*payload)));
    std::string out;
    for (const auto& violation : bad.field_violations()) {
      absl::StrAppend(&out, out.empty() ? "" : "; ", violation.field(), ": ",
                      violation.description());
    }
    return out;
  }

  static inline const Model* model_ = nullptr;
  Converter converter_{*model_};
  Limits limits_;
  v1::CreateSweepRequest request_;
};

TEST_F(SweepRequestTest, ExpandsObjectivesThenNeuronsEachUnderEachSeed) {
  AddNeurons(2, 254, 255);
  AddNeurons(0, 7, 7);
  AddObjective(3, 1);
  for (const uint64_t seed : {uint64_t{9}, uint64_t{0}, ~uint64_t{0}}) spec().add_seeds(seed);
  spec().mutable_job()->set_iterations(17);
  spec().mutable_job()->set_top_k(16);
  const absl::StatusOr<SweepPlan> plan = Check();
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->jobs(), 12);
  const std::vector<NeuronTerm> expected = {{.layer = 3, .neuron = 1},
                                            {.layer = 2, .neuron = 254},
                                            {.layer = 2, .neuron = 255},
                                            {.layer = 0, .neuron = 7}};
  for (int i = 0; i < 12; ++i) {
    const SearchSpec search = plan->Search(i);
    EXPECT_EQ(std::get<NeuronTerm>(search.objective.terms.at(0).kind), expected[i / 3]) << i;
    EXPECT_EQ(search.options.seed, plan->seeds[i % 3]) << i;
    EXPECT_EQ(search.options.iterations, 17);
    EXPECT_EQ(plan->wire_objectives[i / 3].neuron().neuron(), expected[i / 3].neuron);
  }
  EXPECT_EQ(plan->seeds, (std::vector<uint64_t>{9, 0, ~uint64_t{0}}));
}

TEST_F(SweepRequestTest, WithoutSeedsThereIsTheDefaultOne) {
  AddNeurons(2, 0, 1);
  spec().mutable_job()->set_top_k(16);
  EXPECT_EQ(Check()->seeds, std::vector<uint64_t>{0});
}

// A matrix of `rows` rows, of which the one after `good_rows` is all 0.
class Matrix : public VectorSource {
 public:
  Matrix(int rows, int width, int good_rows) : rows_(rows), width_(width), good_rows_(good_rows) {}
  absl::StatusOr<VectorValues> Row(const std::string& name, int row) const override {
    if (name != "m") return absl::NotFoundError("names a vector that is not there");
    if (row >= rows_) return absl::OutOfRangeError(absl::StrCat("is ", row, ", but m is short"));
    return std::make_shared<const std::vector<float>>(width_, row == good_rows_ ? 0.0F : 1.0F);
  }

 private:
  const int rows_;
  const int width_;
  const int good_rows_;
};

TEST_F(SweepRequestTest, WhatIsWrongWithADirectionIsNamedAsItWasGiven) {
  const auto refusal = [&](const Matrix& matrix, const char* name, int first, int last,
                           int layer = 1) {
    const Converter converter(*model_, &matrix);
    v1::CreateSweepRequest request;
    request.mutable_spec()->mutable_job()->set_top_k(16);
    v1::DirectionRange& range = *request.mutable_spec()->add_directions();
    range.mutable_direction()->set_layer(layer);
    range.mutable_direction()->mutable_vector()->set_name(name);
    range.set_first_row(first);
    range.set_last_row(last);
    const auto plan = CheckSweepRequest(request, converter, limits_);
    return plan.ok() ? "accepted" : std::string(plan.status().message());
  };
  const int width = model_->config().hidden_size;
  const Matrix good(6, width, 6);
  EXPECT_EQ(refusal(good, "m", 0, 5), "accepted");
  EXPECT_EQ(refusal(good, "m", 0, 9), "spec.directions[0].last_row: is 9, but m is short");
  EXPECT_EQ(refusal(good, "m", 6, 9), "spec.directions[0].first_row: is 6, but m is short");
  EXPECT_EQ(refusal(good, "n", 0, 5),
            "spec.directions[0].direction.vector: names a vector that is not there");
  EXPECT_EQ(refusal(Matrix(6, width, 3), "m", 1, 5),
            "spec.directions[0].direction.vector: row 3 is all 0; give a vector with a direction");
  EXPECT_EQ(refusal(good, "m", 0, 5, /*layer=*/99).find("spec.directions[0].direction.layer: "), 0)
      << refusal(good, "m", 0, 5, 99);
}

TEST_F(SweepRequestTest, NamesEveryBadField) {
  EXPECT_EQ(Refusal(), "spec: is required");
  request_.set_request_id("x");
  spec();
  EXPECT_EQ(Refusal(),
            "request_id: \"x\" is not a UUID; spec.objectives: is required; give objectives, "
            "neurons or directions");
  request_.clear_request_id();
  spec().mutable_job()->set_top_k(16);
  AddNeurons(4, 0, 1);
  AddNeurons(1, 5, 4);
  AddNeurons(1, -1, 256);
  spec().add_seeds(3);
  spec().add_seeds(3);
  spec().mutable_job()->set_seed(1);
  spec().mutable_job()->mutable_objective()->mutable_neuron()->set_layer(99);
  spec().mutable_job()->set_tokens(1);
  EXPECT_EQ(Refusal(),
            "spec.neurons[0].layer: is 4, but must be from 0 to 3; "
            "spec.neurons[1].last: is 4, but must be from 5 to 255; "
            "spec.neurons[2].first: is -1, but must be from 0 to 255; "
            "spec.neurons[2].last: is 256, but must be from 0 to 255; "
            "spec.seeds[1]: is 3, as is seeds[0]; give each seed once; "
            "spec.job.objective: leave it out; give spec.objectives; "
            "spec.job.seed: leave it out; give spec.seeds; "
            "spec.job.tokens: is 1, but must be from 2 to 256");
}

TEST_F(SweepRequestTest, ABadObjectiveIsNamedByItsPlace) {
  spec().mutable_job()->set_top_k(16);
  AddObjective(1, 1);
  AddObjective(4, 1);
  spec().add_objectives();
  const std::string refusal = Refusal();
  EXPECT_EQ(refusal.find("spec.objectives[1].neuron.layer: "), 0) << refusal;
  EXPECT_NE(refusal.find("; spec.objectives[2]"), std::string::npos) << refusal;
  EXPECT_EQ(refusal.find("spec.job"), std::string::npos) << refusal;
}

TEST_F(SweepRequestTest, OverALimitNamesTheFieldAndExpandsNothing) {
  limits_.sweep_jobs = 100;
  spec().mutable_job()->set_top_k(16);
  AddNeurons(1, 0, 99);
  EXPECT_EQ(Refusal(), "accepted");
  AddObjective(1, 5);
  EXPECT_EQ(Refusal(),
            "spec.neurons: makes 101 objectives, but this server takes at most 100 "
            "(--max-sweep-jobs)");
  spec().clear_neurons();
  for (uint64_t seed = 0; seed < 51; ++seed) spec().add_seeds(seed);
  AddObjective(1, 6);
  EXPECT_EQ(Refusal(),
            "spec.seeds: times 2 objectives is 102 jobs, but this server takes at most 100 "
            "(--max-sweep-jobs)");
  limits_.sweep_jobs = 1000;
  limits_.waiting_jobs_per_client = 101;
  EXPECT_EQ(Refusal(),
            "spec.seeds: times 2 objectives is 102 jobs, but this server takes at most 101 "
            "(--max-queued-jobs-per-client)");
  // Were they made, there would be no end of it.
  limits_ = {};
  for (int i = 0; i < 1000; ++i) AddNeurons(1, -2147483647, 2147483647);
  const absl::Time start = absl::Now();
  EXPECT_EQ(Refusal().find("spec.neurons: makes 4294967295002 objectives"), 0) << Refusal();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST_F(SweepRequestTest, BoundsWhatTheJobsKeepOfTheirSpecs) {
  spec().mutable_job()->set_top_k(16);
  spec().mutable_job()->set_tokens(12);
  spec().mutable_job()->set_population(1000);
  for (int i = 0; i < 1000; ++i) {
    v1::TokenIds& ids = *spec().mutable_job()->add_initial_prompts()->mutable_ids();
    for (int k = 0; k < 12; ++k) ids.add_ids(300 + k);
  }
  AddNeurons(1, 0, 99);
  EXPECT_EQ(Refusal(), "accepted");
  for (uint64_t seed = 0; seed < 100; ++seed) spec().add_seeds(seed);
  EXPECT_EQ(Refusal().find("spec: its jobs' specs would take "), 0) << Refusal();
}

TEST_F(SweepRequestTest, ADeadlineThatHasPassedIsFineForARepeat) {
  spec().mutable_job()->set_top_k(16);
  *spec().mutable_job()->mutable_deadline() = ToTimestamp(absl::Now() - absl::Seconds(1));
  AddNeurons(1, 0, 0);
  EXPECT_EQ(Refusal().find("spec.job.deadline: is "), 0);
}

TEST_F(SweepRequestTest, TenThousandJobsAreCheckedAtOnce) {
  spec().mutable_job()->set_top_k(16);
  for (int layer = 0; layer < 4; ++layer) AddNeurons(layer, 0, 249);
  for (uint64_t seed = 0; seed < 10; ++seed) spec().add_seeds(seed);
  // Tokenized once, not for each job.
  spec().mutable_job()->add_initial_prompts()->set_text(std::string(100, 'x'));
  const absl::Time start = absl::Now();
  const absl::StatusOr<SweepPlan> plan = Check();
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->jobs(), 10'000);
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
}

}  // namespace
}  // namespace epo
