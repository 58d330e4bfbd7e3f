#include "core/evaluate/recorded.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/evaluate/prepare.h"
#include "tests/unit/core/fake_recorder.h"
#include "tests/unit/core/targets.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

double Value(const std::vector<at::Tensor>& results) { return results.at(0).item<double>(); }

TEST(RecordedTest, RecordsAShapeWhenItComesTheSecondTime) {
  FakeRecorder recorder;
  Recorded recorded(&recorder);
  const auto sum = [](const std::vector<at::Tensor>& inputs) -> std::vector<at::Tensor> {
    return {inputs[0].sum()};
  };
  EXPECT_EQ(Value(recorded.Call({1}, {at::full({3}, 1.0)}, sum)), 3);
  EXPECT_EQ(recorder.recordings, 0);
  EXPECT_EQ(Value(recorded.Call({1}, {at::full({3}, 2.0)}, sum)), 6);
  EXPECT_EQ(Value(recorded.Call({1}, {at::full({3}, 3.0)}, sum)), 9);
  EXPECT_EQ(recorder.recordings, 1);
  EXPECT_EQ(recorder.replays, 2);
  // Another shape, and other sizes of the inputs, are recorded apart.
  EXPECT_EQ(Value(recorded.Call({2}, {at::full({3}, 4.0)}, sum)), 12);
  EXPECT_EQ(Value(recorded.Call({1}, {at::full({4}, 4.0)}, sum)), 16);
  EXPECT_EQ(recorder.recordings, 1);
}

TEST(RecordedTest, ForgetsWhatWasNotCalledForLong) {
  FakeRecorder recorder;
  Recorded recorded(&recorder);
  const auto same = [](const std::vector<at::Tensor>& inputs) { return inputs; };
  const auto call = [&](int64_t shape, double value) {
    return Value(recorded.Call({shape}, {at::full({1}, value)}, same));
  };
  call(0, 1);
  call(0, 1);
  for (int64_t shape = 1; shape < 40; ++shape) {
    EXPECT_EQ(call(shape, 2), 2);
    EXPECT_EQ(call(0, static_cast<double>(shape)), shape);
  }
  EXPECT_EQ(recorder.recordings, 1);
  // The first of the others is long forgotten, the last is not.
  call(1, 3);
  EXPECT_EQ(recorder.recordings, 1);
  call(39, 3);
  EXPECT_EQ(recorder.recordings, 2);
}

void ExpectNear(const at::Tensor& a, const at::Tensor& b) {
  ASSERT_EQ(a.defined(), b.defined());
  if (a.defined()) EXPECT_TRUE(at::allclose(a, b, 1e-12, 1e-12));
}

void ExpectNear(const PreparedPrompt& a, const PreparedPrompt& b) {
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_NEAR(a.value, b.value, 1e-12);
  EXPECT_NEAR(a.cross_entropy, b.cross_entropy, 1e-6);
  EXPECT_EQ(a.next, b.next);
  ExpectNear(a.target_gradient, b.target_gradient);
  ExpectNear(a.cross_entropy_gradient, b.cross_entropy_gradient);
  ASSERT_EQ(a.branches.size(), b.branches.size());
  for (size_t i = 0; i < a.branches.size(); ++i) {
    ExpectNear(a.branches[i].keys_values, b.branches[i].keys_values);
    ExpectNear(a.branches[i].log_probs, b.branches[i].log_probs);
  }
}

// Objectives of more than one neuron mix in one pass; neither their numbers nor how many tokens
// precede a prompt may be baked into a recording.
TEST(RecordedTest, RecordedReadingsEqualPlainOnes) {
  auto model = Model::Load(ParityModel("llama-tiny"), {"cpu", "float64"});
  ASSERT_TRUE(model.ok()) << model.status();
  FakeRecorder recorder;
  PromptReader plain(**model, {}, 1);
  PromptReader recorded(**model, {.recorder = &recorder}, 4);
  EvaluatorCounters counters;
  for (const bool gradients : {true, false}) {
    for (int round = 0; round < 4; ++round) {
      std::vector<Objective> objectives = ManyObjectives(**model);
      std::get<NeuronTerm>(objectives[0].terms[0].kind).neuron = round;
      std::get<LogitTerm>(objectives[1].terms[1].kind).token = 20 + round;
      objectives[1].contexts[0].prefix[0] = round;
      objectives[3].terms[2].weight = round;
      std::vector<PrepareRequest> requests;
      for (size_t i = 0; i < 7; ++i) {
        Prompt prompt;
        for (int j = 0; j < 7; ++j) {
          prompt.push_back(static_cast<TokenId>(31 * round + 17 * i + 5 * j) % 512);
        }
        const Objective& objective = objectives[i % objectives.size()];
        requests.push_back({prompt, MakeTarget(**model, objective), gradients});
      }
      const auto expected = plain.Read(requests, counters);
      const auto actual = recorded.Read(requests, counters);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < actual.size(); ++i) {
        ExpectNear(static_cast<const PreparedPrompt&>(*actual[i]),
                   static_cast<const PreparedPrompt&>(*expected[i]));
      }
    }
  }
  EXPECT_EQ(recorder.recordings, 2);
  EXPECT_EQ(recorder.replays, 6);
}

// What a maximum, a threshold or a soft-min lets through depends on what is read.
TEST(RecordedTest, GradientsThatDependOnWhatIsReadAreNotRecorded) {
  auto model = Model::Load(ParityModel("phi-tiny"), {"cpu", "float64"});
  ASSERT_TRUE(model.ok()) << model.status();
  Objective greatest = NeuronObjective(1, 3);
  greatest.terms[0].position = {.reduce = Position::Reduce::kMax, .first = 0, .last = -1};
  Objective least = ManyObjectives(**model)[2];
  least.combine = Objective::Combine::kSoftMin;
  Objective across = ManyObjectives(**model)[3];
  across.across = Objective::Across::kMin;
  FakeRecorder recorder;
  PromptReader plain(**model, {}, 1);
  PromptReader recorded(**model, {.recorder = &recorder}, 4);
  EvaluatorCounters counters;
  for (const Objective& objective : {greatest, least, across}) {
    for (int round = 0; round < 3; ++round) {
      const PrepareRequest request{{1, 2, 3 + round, 4, 5}, MakeTarget(**model, objective), true};
      ExpectNear(static_cast<const PreparedPrompt&>(*recorded.Read({&request, 1}, counters)[0]),
                 static_cast<const PreparedPrompt&>(*plain.Read({&request, 1}, counters)[0]));
    }
  }
  EXPECT_EQ(recorder.recordings, 0);
}

}  // namespace
}  // namespace epo
