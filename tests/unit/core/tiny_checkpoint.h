// Checkpoints of a few kilobytes, and the bytes of safetensors files, right and wrong.
#ifndef EPO_TESTS_UNIT_CORE_TINY_CHECKPOINT_H_
#define EPO_TESTS_UNIT_CORE_TINY_CHECKPOINT_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace epo {

struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

// A header with its length before it, then data.
std::string RawSafetensors(const std::string& header, const std::string& data);

// A valid file of `tensors`, one after another.
std::string Safetensors(const StoredTensors& tensors);

// An F32 tensor of small random values, the same for the same name.
StoredTensor RandomTensor(const std::string& name, const std::vector<int64_t>& shape);

// config.json and weights of a two-layer model with 8 hidden channels and 520 embedding rows.
nlohmann::json TinyPhiConfig();
StoredTensors TinyPhiTensors();

// tokenizer.json with 512 ordinary tokens, the special token 512 and the ordinary added token 513.
nlohmann::json TinyTokenizer();

// Writes all of the above to `dir`.
void WriteTinyPhi(const std::filesystem::path& dir);

// The checkpoints of tests/parity, "phi-tiny" or "llama-tiny".
std::filesystem::path ParityModel(const std::string& name);

}  // namespace epo

#endif  // EPO_TESTS_UNIT_CORE_TINY_CHECKPOINT_H_
