// A function of tensors that a GPU gets in one piece from its second call of one shape on. Includes
// torch.
#ifndef EPO_CORE_EVALUATE_RECORDED_H_
#define EPO_CORE_EVALUATE_RECORDED_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/model/recorder.h"

namespace epo {

// Used by one thread.
class Recorded {
 public:
  using Tensors = std::vector<at::Tensor>;
  // Must depend on nothing but its inputs, what `shape` says and the model.
  using Function = std::function<Tensors(const Tensors& inputs)>;

  // Without a recorder every call is a plain one. `recorder` must outlive this.
  explicit Recorded(Recorder* recorder) : recorder_(recorder) {}

  // `function` of `inputs`. `shape` and the inputs' sizes tell apart what is recorded apart. The
  // next call may overwrite the results. Throws c10::Error when the device fails.
  Tensors Call(std::vector<int64_t> shape, const Tensors& inputs, const Function& function);

 private:
  struct Entry {
    int64_t last_call = 0;
    // Null until the second call.
    std::unique_ptr<Recording> recording;
    // What the recording reads.
    Tensors inputs;
  };
  void Forget();

  Recorder* const recorder_;
  int64_t calls_ = 0;
  absl::flat_hash_map<std::vector<int64_t>, Entry> entries_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_RECORDED_H_
