#include "core/model/checkpoint.h"

#include <fstream>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/json_text.h"
#include "nlohmann/json.hpp"

namespace epo {

using Json = nlohmann::json;

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::filesystem::path& dir) {
  Checkpoint checkpoint;
  const std::filesystem::path single = dir / "model.safetensors";
  const std::filesystem::path index = dir / "model.safetensors.index.json";
  std::error_code error;
  if (std::filesystem::exists(single, error) || !std::filesystem::exists(index, error)) {
    auto file = SafetensorsFile::Open(single);
    if (!file.ok()) return file.status();
    checkpoint.source_ = single;
    checkpoint.files_.push_back(*std::move(file));
    return checkpoint;
  }

  checkpoint.source_ = index;
  std::ifstream stream(index, std::ios::binary);
  const Json json = Json::parse(stream, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object() || !json.contains("weight_map") ||
      !json["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(index.string(), ": no 'weight_map' object"));
  }
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> shards;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : "";
    // A shard stands beside its index; anything else could name a file that is none of ours.
    if (name.empty() || name != std::filesystem::path(name).filename().string()) {
      return absl::InvalidArgumentError(absl::StrCat(index.string(), ": tensor ", QuoteJson(tensor),
                                                     " has the bad file name ", ShowJson(shard)));
    }
    auto& file = shards[name];
    if (file == nullptr) {
      auto opened = SafetensorsFile::Open(dir / name);
      if (!opened.ok()) return opened.status();
      file = *std::move(opened);
    }
    if (file->Find(tensor) == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(index.string(), ": tensor ", QuoteJson(tensor),
                                                     " is not in ", name,
                                                     ", which should hold it"));
    }
  }
  for (auto& [name, file] : shards) checkpoint.files_.push_back(std::move(file));
  return checkpoint;
}

absl::StatusOr<Checkpoint::Tensor> Checkpoint::Find(const std::string& name) const {
  for (const auto& file : files_) {
    if (const TensorView* view = file->Find(name)) return Tensor{*view, file};
  }
  return absl::NotFoundError(
      absl::StrCat(source_.string(), ": tensor ", QuoteJson(name), " is missing"));
}

}  // namespace epo
