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

TEST(RecordedTest, RecordedReadingsEqualPlainOnes) {
  auto model = Model::Load(ParityModel("llama-tiny"), {"cpu", "float64"});
  ASSERT_TRUE(model.ok()) << model.status();
  FakeRecorder recorder;
  PromptReader plain(**model, {}, 1);
  PromptReader recorded(**model, {.recorder = &recorder}, 4);
  EvaluatorCounters counters;
  for (const bool gradients : {true, false}) {
    for (int round = 0; round < 4; ++round) {
      std::vector<PrepareRequest> requests;
      for (int i = 0; i < 3; ++i) {
        Prompt prompt;
        for (int j = 0; j < 7; ++j) prompt.push_back((31 * round + 17 * i + 5 * j) % 512);
        requests.push_back({prompt, NeuronTarget(**model, i == 2 ? 0 : 1, round + i), gradients});
      }
      const auto expected = plain.Read(requests, counters);
      const auto actual = recorded.Read(requests, counters);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < actual.size(); ++i) {
        const auto& a = static_cast<const PreparedPrompt&>(*actual[i]);
        const auto& b = static_cast<const PreparedPrompt&>(*expected[i]);
        EXPECT_EQ(a.ids, b.ids);
        EXPECT_NEAR(a.value, b.value, 1e-12);
        EXPECT_NEAR(a.cross_entropy, b.cross_entropy, 1e-6);
        EXPECT_EQ(a.next, b.next);
        if (!gradients) continue;
        EXPECT_TRUE(
            at::allclose(a.branches[0].keys_values, b.branches[0].keys_values, 1e-12, 1e-12));
        EXPECT_TRUE(at::allclose(a.branches[0].log_probs, b.branches[0].log_probs, 1e-12, 1e-12));
        EXPECT_TRUE(at::allclose(a.target_gradient, b.target_gradient, 1e-12, 1e-12));
        EXPECT_TRUE(at::allclose(a.cross_entropy_gradient, b.cross_entropy_gradient, 1e-12, 1e-12));
      }
    }
  }
  EXPECT_EQ(recorder.recordings, 2);
  EXPECT_EQ(recorder.replays, 6);
}

}  // namespace
}  // namespace epo
