// A Hugging Face checkpoint made resident.
#ifndef EPO_CORE_MODEL_MODEL_H_
#define EPO_CORE_MODEL_MODEL_H_

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/model/model_config.h"
#include "core/model/tokenizer.h"

namespace epo {

struct Weights;  // core/model/weights.h; holds tensors, so kept out of this header

struct ModelOptions {
  // "cpu", "cuda:N", or "auto": the first CUDA device where there is one, else the CPU.
  std::string device = "auto";
  // "float64", "float32", "bfloat16", "float16", or "auto": bfloat16 on a CUDA device or a CPU with
  // native bfloat16, else float32.
  std::string dtype = "auto";
};

// Thread-safe: immutable once loaded, shared by reference. Its tensors may be touched only by the
// thread that runs the evaluator.
class Model {
 public:
  // Loads config.json, tokenizer.json and model.safetensors (or the shards that
  // model.safetensors.index.json names) from `dir`, and its chat template. Weights stay
  // memory-mapped where the device and dtype allow it. INVALID_ARGUMENT or NOT_FOUND names the
  // file, and within it the key or the tensor, that is missing or wrong; UNAVAILABLE when the
  // device cannot be used.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::filesystem::path& dir,
                                                     const ModelOptions& options);

  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const Weights& weights() const { return *weights_; }

  // The directory's name.
  const std::string& name() const { return name_; }
  // 32 hex digits over config.json and the weights' headers and sizes; equal for equal checkpoints,
  // whatever the device and dtype.
  const std::string& fingerprint() const { return fingerprint_; }
  // The Jinja template that makes a text of a conversation, as the checkpoint has it in
  // chat_template.jinja or tokenizer_config.json; empty where it has none.
  const std::string& chat_template() const { return chat_template_; }
  // Resolved: "cpu" or "cuda:N".
  const std::string& device() const { return device_; }
  // Resolved: "float64", "float32", "bfloat16" or "float16".
  const std::string& dtype() const { return dtype_; }

 private:
  Model();

  std::string name_;
  std::string fingerprint_;
  std::string chat_template_;
  std::string device_;
  std::string dtype_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Weights> weights_;
};

}  // namespace epo

#endif  // EPO_CORE_MODEL_MODEL_H_
