// A file of weights: what opens can be read to its end.
#include <algorithm>

#include "core/model/safetensors.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using epo::Require;
  const epo::InputFile input({reinterpret_cast<const char*>(data), size});
  const auto file = epo::SafetensorsFile::Open(input.path());
  if (!file.ok()) {
    epo::RequireGoodError(file.status(), input.path());
    return 0;
  }
  const auto* begin = reinterpret_cast<const std::byte*>((*file)->header().data());
  begin += (*file)->header().size();
  const size_t all = size - 8 - (*file)->header().size();
  size_t sum = 0;
  const auto header = nlohmann::json::parse((*file)->header());
  for (const auto& [name, entry] : header.items()) {
    const epo::TensorView* tensor = (*file)->Find(name);
    Require((tensor == nullptr) == (name == "__metadata__"), "each tensor of the header is found");
    if (tensor == nullptr) continue;
    Require(tensor->data >= begin && tensor->bytes <= all &&
                tensor->data + tensor->bytes <= begin + all,
            "a tensor lies within the file");
    const auto* at = reinterpret_cast<const uint8_t*>(tensor->data);
    Require(std::equal(at, at + tensor->bytes, data + (tensor->data - begin) + (size - all)),
            "a tensor holds the file's bytes");
    Require(tensor->shape.size() == entry["shape"].size(), "a shape has all dimensions");
    sum += tensor->bytes;
  }
  Require(sum == all, "no byte belongs to none or two tensors");
  return 0;
}
