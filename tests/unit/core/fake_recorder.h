// A recorder for tests on a CPU: a replay does the recorded work again, into the same results.
#ifndef EPO_TESTS_UNIT_CORE_FAKE_RECORDER_H_
#define EPO_TESTS_UNIT_CORE_FAKE_RECORDER_H_

#include <ATen/ATen.h>

#include "core/model/recorder.h"

namespace epo {

class FakeRecorder final : public Recorder {
 public:
  std::unique_ptr<Recording> Record(const Work& work) override {
    ++recordings;
    return std::make_unique<FakeRecording>(*this, work);
  }

  int recordings = 0;
  int replays = 0;

 private:
  class FakeRecording final : public Recording {
   public:
    FakeRecording(FakeRecorder& recorder, const Work& work) : recorder_(recorder), work_(work) {
      // As a GPU's, which are not filled before the first replay.
      for (const at::Tensor& result : work_()) results_.push_back(at::full_like(result, -1));
    }

    void Replay() override {
      ++recorder_.replays;
      const std::vector<at::Tensor> again = work_();
      for (size_t i = 0; i < again.size(); ++i) results_[i].copy_(again[i]);
    }

    const std::vector<at::Tensor>& results() const override { return results_; }

   private:
    FakeRecorder& recorder_;
    const Work work_;
    std::vector<at::Tensor> results_;
  };
};

}  // namespace epo

#endif  // EPO_TESTS_UNIT_CORE_FAKE_RECORDER_H_
