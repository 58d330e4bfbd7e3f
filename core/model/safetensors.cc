#include "core/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/model/json_text.h"
#include "nlohmann/json.hpp"

namespace epo {
namespace {

using Json = nlohmann::json;

// The format's own limit on a header.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

std::optional<size_t> DTypeSize(std::string_view dtype) {
  static constexpr std::pair<std::string_view, size_t> kSizes[] = {
      {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
      {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
      {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, size] : kSizes) {
    if (name == dtype) return size;
  }
  return std::nullopt;
}

absl::StatusOr<TensorView> ReadEntry(const Json& entry, const std::byte* data, uint64_t data_size) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) {
    return absl::InvalidArgumentError("its entry lacks a dtype, a shape or two data_offsets");
  }
  TensorView view;
  view.dtype = entry["dtype"].get<std::string>();
  const std::optional<size_t> element = DTypeSize(view.dtype);
  if (!element)
    return absl::InvalidArgumentError(absl::StrCat("unknown dtype ", QuoteJson(view.dtype)));
  uint64_t expected = *element;
  for (const Json& dim : entry["shape"]) {
    if (!dim.is_number_unsigned()) {
      return absl::InvalidArgumentError(absl::StrCat("bad shape ", ShowJson(entry["shape"])));
    }
    if (__builtin_mul_overflow(expected, dim.get<uint64_t>(), &expected) ||
        dim.get<uint64_t>() > INT64_MAX) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShowJson(entry["shape"]), " overflows"));
    }
    view.shape.push_back(dim.get<int64_t>());
  }
  const Json& offsets = entry["data_offsets"];
  if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
    return absl::InvalidArgumentError(absl::StrCat("bad data_offsets ", ShowJson(offsets)));
  }
  const uint64_t begin = offsets[0].get<uint64_t>();
  const uint64_t end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_size) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets ", ShowJson(offsets),
                                                   " reach outside the file's ", data_size,
                                                   " bytes of data; is it truncated?"));
  }
  if (end - begin != expected) {
    return absl::InvalidArgumentError(absl::StrCat("holds ", end - begin, " bytes, but shape ",
                                                   ShowJson(entry["shape"]), " of ", view.dtype,
                                                   " takes ", expected));
  }
  view.data = data + begin;
  view.bytes = end - begin;
  return view;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::filesystem::path& path) {
  const auto bad = [&](auto&&... what) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", what...));
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(path.string(), ": no such file"));
    return bad(std::strerror(errno));
  }
  struct stat info = {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (!regular || info.st_size < 8) {
    close(fd);
    return bad(regular ? "too short for a safetensors file" : "not a regular file");
  }

  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->size_ = static_cast<size_t>(info.st_size);
  file->map_ = mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (file->map_ == MAP_FAILED) {
    file->map_ = nullptr;
    return bad("cannot be memory-mapped: ", std::strerror(errno));
  }
  if (absl::Status read = file->Read(static_cast<const std::byte*>(file->map_), file->size_);
      !read.ok()) {
    return bad(read.message());
  }
  return file;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::FromBytes(
    std::string bytes) {
  if (bytes.size() < 8) return absl::InvalidArgumentError("too short for a safetensors file");
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->bytes_ = std::move(bytes);
  if (absl::Status read =
          file->Read(reinterpret_cast<const std::byte*>(file->bytes_.data()), file->bytes_.size());
      !read.ok()) {
    return read;
  }
  return file;
}

absl::Status SafetensorsFile::Read(const std::byte* bytes, size_t size) {
  const auto bad = [](auto&&... what) { return absl::InvalidArgumentError(absl::StrCat(what...)); };
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes, sizeof(header_size));
  if (header_size > size - 8) {
    return bad("its header length ", header_size, " is past the end of the file");
  }
  if (header_size > kMaxHeaderBytes) return bad("its header length ", header_size, " is too large");
  header_ = std::string_view(reinterpret_cast<const char*>(bytes + 8), header_size);
  const Json header = Json::parse(header_, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (header.is_discarded() || !header.is_object()) return bad("its header is not a JSON object");

  const std::byte* data = bytes + 8 + header_size;
  const uint64_t data_size = size - 8 - header_size;
  std::vector<std::pair<const TensorView*, std::string>> by_offset;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<TensorView> view = ReadEntry(entry, data, data_size);
    if (!view.ok()) return bad("tensor ", QuoteJson(name), ": ", view.status().message());
    tensors_.emplace(name, *std::move(view));
  }
  for (const auto& [name, view] : tensors_) by_offset.emplace_back(&view, name);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->data, a.first->bytes) < std::pair(b.first->data, b.first->bytes);
  });
  const std::byte* end = data;
  for (const auto& [view, name] : by_offset) {
    if (view->data != end) {
      return bad("tensor ", QuoteJson(name),
                 view->data < end ? " overlaps" : " leaves a hole after", " the one before it");
    }
    end += view->bytes;
  }
  if (end != data + data_size) {
    return bad("has ", data + data_size - end, " bytes that belong to no tensor");
  }
  return absl::OkStatus();
}

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) munmap(map_, size_);
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto it = tensors_.find(absl::string_view(name.data(), name.size()));
  return it == tensors_.end() ? nullptr : &it->second;
}

std::vector<std::string> SafetensorsFile::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, view] : tensors_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace epo
