#include "core/model/model.h"

#include <c10/util/Exception.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/chat_template.h"
#include "core/model/checkpoint.h"
#include "core/model/device.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// FNV-1a over 128 bits: a name for a checkpoint, not a defence against forgery.
class Fingerprint {
 public:
  void Add(std::string_view bytes) {
    constexpr unsigned __int128 kPrime =
        (static_cast<unsigned __int128>(0x0000000001000000) << 64) | 0x000000000000013B;
    for (const char c : bytes) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * kPrime;
    hash_ = (hash_ ^ 0x100) * kPrime;  // a boundary that no byte makes
  }

  std::string Hex() const {
    return absl::StrCat(absl::Hex(static_cast<uint64_t>(hash_ >> 64), absl::kZeroPad16),
                        absl::Hex(static_cast<uint64_t>(hash_), absl::kZeroPad16));
  }

 private:
  unsigned __int128 hash_ =
      (static_cast<unsigned __int128>(0x6c62272e07bb0142) << 64) | 0x62b821756295c58d;
};

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

}  // namespace

Model::Model() = default;
Model::~Model() = default;

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const std::filesystem::path& dir,
                                                   const ModelOptions& options) {
  std::error_code error;
  if (!std::filesystem::is_directory(dir, error)) {
    return absl::NotFoundError(absl::StrCat(dir.string(), ": no such model directory"));
  }
  std::unique_ptr<Model> model(new Model);
  const std::filesystem::path absolute = std::filesystem::absolute(dir, error).lexically_normal();
  model->name_ = absolute.has_filename() ? absolute.filename().string()
                                         : absolute.parent_path().filename().string();

  absl::StatusOr<c10::Device> device = ResolveDevice(options.device);
  if (!device.ok()) return device.status();
  absl::StatusOr<c10::ScalarType> dtype = ResolveDType(options.dtype, *device);
  if (!dtype.ok()) return dtype.status();
  model->device_ = DeviceName(*device);
  model->dtype_ = DTypeName(*dtype);

  absl::StatusOr<ModelConfig> config = ParseModelConfig(dir / "config.json");
  if (!config.ok()) return config.status();
  model->config_ = *std::move(config);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(dir / "tokenizer.json");
  if (!tokenizer.ok()) return tokenizer.status();
  model->tokenizer_ = *std::move(tokenizer);
  absl::StatusOr<std::string> chat_template = ReadChatTemplate(dir);
  if (!chat_template.ok()) return chat_template.status();
  model->chat_template_ = *std::move(chat_template);
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir);
  if (!checkpoint.ok()) return checkpoint.status();

  try {
    absl::StatusOr<std::unique_ptr<Weights>> weights =
        LoadWeights(*checkpoint, model->config_, *device, *dtype);
    if (!weights.ok()) return weights.status();
    model->weights_ = *std::move(weights);
  } catch (const c10::Error& e) {
    return absl::ResourceExhaustedError(absl::StrCat(
        dir.string(), ": loading onto ", model->device_, " failed: ", e.what_without_backtrace()));
  }

  Fingerprint fingerprint;
  fingerprint.Add(ReadFile(dir / "config.json"));
  for (const auto& file : checkpoint->files()) fingerprint.Add(file->header());
  model->fingerprint_ = fingerprint.Hex();
  return model;
}

}  // namespace epo
