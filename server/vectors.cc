#include "server/vectors.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/float_matrix.h"
#include "core/model/safetensors.h"
#include "server/status.h"

namespace epo {
namespace {

// More rows than this are looked through for those that nobody holds any more.
constexpr size_t kSharedRows = 1024;
// Bytes of the digest that make a name.
constexpr size_t kNameBytes = 16;
// Names of tensors that a message shows.
constexpr size_t kShownNames = 8;

absl::Status Bad(const std::string& field, absl::string_view description) {
  return InvalidFields({{field, std::string(description)}});
}

std::optional<NumberFormat> FormatOf(const std::string& dtype) {
  if (dtype == "F16") return NumberFormat::kFloat16;
  if (dtype == "BF16") return NumberFormat::kBFloat16;
  if (dtype == "F32") return NumberFormat::kFloat32;
  if (dtype == "F64") return NumberFormat::kFloat64;
  return std::nullopt;
}

std::string ListNames(std::vector<std::string> names) {
  const bool all = names.size() <= kShownNames;
  if (!all) names.resize(kShownNames);
  return absl::StrCat(absl::StrJoin(names, ", "), all ? "" : ", ...");
}

absl::StatusOr<FloatMatrix> ReadSafetensors(const v1::UploadVectorRequest& request) {
  const auto file = SafetensorsFile::FromBytes(request.safetensors());
  if (!file.ok()) return Bad("safetensors", file.status().message());
  const std::vector<std::string> names = (*file)->Names();
  if (names.empty()) return Bad("safetensors", "holds no tensor");
  if (request.tensor().empty() && names.size() > 1) {
    return Bad("tensor", absl::StrCat("is required: the file holds ", names.size(), " tensors, ",
                                      ListNames(names)));
  }
  const std::string& name = request.tensor().empty() ? names[0] : request.tensor();
  const TensorView* tensor = (*file)->Find(name);
  if (tensor == nullptr) {
    return Bad("tensor",
               absl::StrCat("\"", name, "\" is not in the file, which holds ", ListNames(names)));
  }
  const std::optional<NumberFormat> format = FormatOf(tensor->dtype);
  if (!format.has_value()) {
    return Bad("tensor", absl::StrCat("\"", name, "\" is of ", tensor->dtype,
                                      "; F16, BF16, F32 and F64 are read"));
  }
  auto matrix = MakeMatrix(tensor->shape,
                           {reinterpret_cast<const char*>(tensor->data), tensor->bytes}, *format);
  if (!matrix.ok()) return Bad("tensor", matrix.status().message());
  return matrix;
}

absl::StatusOr<FloatMatrix> ReadFile(const v1::UploadVectorRequest& request) {
  switch (request.content_case()) {
    case v1::UploadVectorRequest::kNpy: {
      if (!request.tensor().empty()) return Bad("tensor", "belongs to safetensors; leave it out");
      auto matrix = ParseNpy(request.npy());
      if (!matrix.ok()) return Bad("npy", matrix.status().message());
      return matrix;
    }
    case v1::UploadVectorRequest::kSafetensors:
      return ReadSafetensors(request);
    case v1::UploadVectorRequest::CONTENT_NOT_SET:
      break;
  }
  return Bad("content", "is required; set npy or safetensors");
}

std::string AsBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// Of the shape and the numbers, whatever file they came in.
std::string NameOf(const StoredVector& vector) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest;
  const std::string hashed = absl::StrCat(vector.rows, " x ", vector.width, "\n", vector.values);
  SHA256(reinterpret_cast<const uint8_t*>(hashed.data()), hashed.size(), digest.data());
  return absl::StrCat("v", absl::BytesToHexString(absl::string_view(
                               reinterpret_cast<const char*>(digest.data()), kNameBytes)));
}

v1::UploadedVector ToWire(const StoredVector& vector) {
  v1::UploadedVector out;
  out.set_name(vector.name);
  out.set_rows(vector.rows);
  out.set_width(vector.width);
  return out;
}

}  // namespace

absl::StatusOr<v1::UploadedVector> Vectors::Upload(const CallContext& context,
                                                   const StorageGuard& storage,
                                                   const v1::UploadVectorRequest& request) {
  const size_t bytes = std::max(request.npy().size(), request.safetensors().size());
  if (bytes > static_cast<size_t>(limits_.vector_bytes)) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("the file has ", bytes, " bytes, but this server takes at most ",
                     limits_.vector_bytes, " (--max-vector-bytes); upload a large matrix in parts"),
        "VECTOR_TOO_LARGE",
        {{"bytes", absl::StrCat(bytes)}, {"limit", absl::StrCat(limits_.vector_bytes)}});
  }
  absl::StatusOr<FloatMatrix> matrix = ReadFile(request);
  if (!matrix.ok()) return matrix.status();
  if (absl::Status good = CheckNumbers(*matrix); !good.ok()) {
    return Bad(request.has_npy() ? "npy" : "safetensors", good.message());
  }
  StoredVector vector{.rows = static_cast<int32_t>(matrix->rows),
                      .width = static_cast<int32_t>(matrix->width),
                      .values = AsBytes(matrix->values)};
  vector.name = NameOf(vector);
  if (absl::Status room = storage.Admit(); !room.ok()) {
    // One that is there already takes no room.
    if (store_.GetVectorRow(vector.name, 0).ok()) return ToWire(vector);
    return room;
  }
  absl::Status kept = store_.PutVector(vector, context.client, limits_.vectors_per_client);
  if (absl::IsOutOfRange(kept)) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrCat(context.client.empty()
                         ? "all clients together have uploaded "
                         : absl::StrCat("client ", context.client, " has uploaded "),
                     limits_.vectors_per_client,
                     " vectors, which is as many as this server keeps (--max-vectors); upload a "
                     "matrix of many rows as one"),
        "TOO_MANY_VECTORS",
        {{"client", context.client}, {"limit", absl::StrCat(limits_.vectors_per_client)}});
  }
  if (!kept.ok()) return kept;
  return ToWire(vector);
}

absl::StatusOr<VectorValues> Vectors::Row(const std::string& name, int row) const {
  const absl::MutexLock lock(&mutex_);
  if (const auto found = rows_.find(std::pair(name, row)); found != rows_.end()) {
    if (VectorValues values = found->second.lock(); values != nullptr) return values;
  }
  absl::StatusOr<StoredVector> stored = store_.GetVectorRow(name, row);
  if (absl::IsNotFound(stored.status())) {
    return absl::NotFoundError(absl::StrCat(
        "names the vector \"", name,
        "\", which was not uploaded to this server; upload it (epo upload-vector FILE)"));
  }
  if (absl::IsOutOfRange(stored.status())) {
    return absl::OutOfRangeError(absl::StrCat("is ", row, ", but ", stored.status().message()));
  }
  if (!stored.ok()) return stored.status();
  auto values =
      std::make_shared<const std::vector<float>>(ToFloats(stored->values, NumberFormat::kFloat32));
  if (rows_.size() >= kSharedRows) {
    absl::erase_if(rows_, [](const auto& entry) { return entry.second.expired(); });
  }
  rows_[std::pair(name, row)] = values;
  return values;
}

}  // namespace epo
