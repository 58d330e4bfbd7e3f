// A library of its own, loaded with torch's CUDA half: whatever links to it would need that half on
// machines without a GPU too.

#include <ATen/cuda/CUDAGraph.h>

#include <exception>
#include <utility>

#include "core/model/recorder.h"

namespace epo {
namespace {

class CudaRecording final : public Recording {
 public:
  // The recordings of one pool never run at the same time, so they share its memory.
  CudaRecording(const Recorder::Work& work, at::cuda::MempoolId_t pool) {
    // Other threads may call CUDA meanwhile.
    graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      results_ = work();
    } catch (...) {
      const std::exception_ptr error = std::current_exception();
      try {
        graph_.capture_end();
      } catch (const c10::Error&) {
        // A broken capture cannot be ended well; `error` says what broke it.
      }
      std::rethrow_exception(error);
    }
    graph_.capture_end();
  }

  void Replay() override { graph_.replay(); }
  const std::vector<at::Tensor>& results() const override { return results_; }

 private:
  at::cuda::CUDAGraph graph_;
  std::vector<at::Tensor> results_;
};

class CudaRecorder final : public Recorder {
 public:
  std::unique_ptr<Recording> Record(const Work& work) override {
    return std::make_unique<CudaRecording>(work, pool_);
  }

 private:
  const at::cuda::MempoolId_t pool_ = at::cuda::graph_pool_handle();
};

}  // namespace
}  // namespace epo

// Called by device.cc, which finds it by name; the caller owns what it returns.
extern "C" __attribute__((visibility("default"))) epo::Recorder* EpoNewCudaRecorder() {
  return new epo::CudaRecorder();
}
