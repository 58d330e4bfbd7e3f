// Work on a GPU that is recorded once and then handed out in one piece: hundreds of small kernels
// otherwise cost the host more time than the device. Includes torch.
#ifndef EPO_CORE_MODEL_RECORDER_H_
#define EPO_CORE_MODEL_RECORDER_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

namespace epo {

// Used by the thread and on the stream that it was recorded by.
class Recording {
 public:
  virtual ~Recording() = default;
  // Does the work again, on what its input tensors hold now; does not wait for it. Throws
  // c10::Error when the device fails.
  virtual void Replay() = 0;
  // What the work returned, overwritten by each replay. Other recordings of the same recorder may
  // overwrite it too.
  virtual const std::vector<at::Tensor>& results() const = 0;
};

// Used by one thread.
class Recorder {
 public:
  // Reads no tensor's values on the host and allocates on the device only through torch.
  using Work = std::function<std::vector<at::Tensor>()>;

  virtual ~Recorder() = default;
  // Records `work` without doing it: results() are not filled before the first replay. `work` must
  // have been done before, plainly and on the current stream, so that the libraries it calls are
  // set up. Throws c10::Error when the device fails, or when `work` cannot be recorded.
  virtual std::unique_ptr<Recording> Record(const Work& work) = 0;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_RECORDER_H_
