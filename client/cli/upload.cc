#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/command.h"
#include "client/cli/errors.h"
#include "client/cli/json.h"
#include "client/cli/output.h"
#include "client/cli/read_file.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

struct UploadOptions {
  std::string file;
  std::string tensor;
};

int Upload(Session& session, const UploadOptions& options) {
  absl::StatusOr<std::string> content = ReadFile(options.file);
  if (!content.ok()) throw CLI::ValidationError("FILE", std::string(content.status().message()));
  v1::UploadVectorRequest request;
  request.set_tensor(options.tensor);
  if (absl::EndsWith(options.file, ".npy")) {
    request.set_npy(*std::move(content));
  } else if (absl::EndsWith(options.file, ".safetensors")) {
    request.set_safetensors(*std::move(content));
  } else {
    throw CLI::ValidationError("FILE", options.file + ": give a .npy or .safetensors file");
  }
  v1::UploadedVector vector;
  const grpc::Status status =
      session.client().CallTwice(&Client::Stub::UploadVector, request, &vector);
  if (!status.ok()) return ReportError(status, session.settings().server);
  if (!session.table()) {
    PrintValue(ToJson(vector), session.settings().format);
    return kDone;
  }
  Print(Escape(vector.name()) + "\n");
  std::fprintf(stderr, "%d x %d numbers; epo submit --direction %s@LAYER names them\n",
               vector.rows(), vector.width(), Escape(vector.name()).c_str());
  return kDone;
}

}  // namespace

void AddUpload(Commands& commands) {
  const auto options = std::make_shared<UploadOptions>();
  CLI::App* app = commands.Add("upload-vector", "Keep a vector, or one a row, on the server",
                               "Example: epo upload-vector sae.safetensors --tensor W_enc",
                               [options](Session& session) { return Upload(session, *options); });
  app->add_option("FILE", options->file, "A .npy or .safetensors file of one or two dimensions")
      ->required()
      ->option_text(" ");
  app->add_option("--tensor", options->tensor, "Which of a safetensors file's tensors")
      ->option_text("NAME");
}

}  // namespace epo::cli
