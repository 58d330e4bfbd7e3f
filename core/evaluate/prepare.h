// Reading parents: one forward pass and the way back over distinct prompts. Includes torch.
#ifndef EPO_CORE_EVALUATE_PREPARE_H_
#define EPO_CORE_EVALUATE_PREPARE_H_

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "core/evaluate/fixed_tokens.h"
#include "core/evaluate/gpu_help.h"
#include "core/evaluate/prepared_prompt.h"
#include "core/evaluate/recorded.h"
#include "core/model/model.h"

namespace epo {

// Used by one thread. The model and the recorder must outlive it.
class PromptReader {
 public:
  // With a recorder, as on a GPU, where reading waits for the weights more than it computes:
  // prompts are read in multiples of `prompts`, the last one again where some are missing, so that
  // few shapes are recorded; and one backward pass over two copies of them gives both gradients. A
  // target whose gradient depends on what is read (a maximum, a threshold, a soft-min) is not
  // recorded.
  PromptReader(const Model& model, const GpuHelp& help, int64_t prompts)
      : model_(model),
        kernels_(help.kernels),
        recorded_(help.recorder),
        bucket_(help.recorder == nullptr ? 1 : prompts),
        copies_(help.recorder == nullptr ? 1 : 2) {}

  // Reads `requests`, valid, few enough for one pass and either all with gradients or all without;
  // adds the cost to `counters`. Throws c10::Error when the device fails.
  std::vector<std::shared_ptr<const Prepared>> Read(std::span<const PrepareRequest> requests,
                                                    EvaluatorCounters& counters);

 private:
  std::shared_ptr<const SharedPrefix> PrefixOf(const ModelTarget& target, const Branch& branch);

  const Model& model_;
  GpuKernels* const kernels_;
  Recorded recorded_;
  const int64_t bucket_;
  const int64_t copies_;
  // Those that somebody holds.
  std::map<Prompt, std::weak_ptr<const SharedPrefix>> prefixes_;
};

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_PREPARE_H_
