#include "client/cli/errors.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <string_view>
#include <utility>

#include "client/cli/text.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace epo::cli {
namespace {

constexpr std::pair<std::string_view, std::string_view> kFlags[] = {
    {"objective.neuron.layer", "--layer"},
    {"objective.neuron.neuron", "--neuron"},
    {"objective.goal", "--minimize"},
    {"initial_job", "--init-from"},
    {"across_contexts", "--across"},
    {"contexts", "--prefix"},
    {"fluency_window", "--count-suffix"},
    {"tokens", "--tokens"},
    {"population", "--population"},
    {"children_per_parent", "--children"},
    {"top_k", "--topk"},
    {"penalty_min", "--penalty-min"},
    {"penalty_max", "--penalty-max"},
    {"iterations", "--iterations"},
    {"restart_period", "--restart-every"},
    {"restart_penalty", "--restart-penalty"},
    {"restart_penalty.low", "--restart-penalty"},
    {"restart_penalty.high", "--restart-penalty"},
    {"seed", "--seed"},
    {"allow_special_tokens", "--allow-special-tokens"},
    {"constraints.ascii_only", "--ascii"},
    {"constraints.decodable_only", "--decodable"},
    {"constraints.banned_ids", "--ban-ids"},
    {"constraints.banned_token_regex", "--ban-regex"},
    {"constraints.banned_texts", "--ban"},
    {"constraints.retokenizable", "--retokenize"},
    {"constraints.frozen_positions", "--freeze"},
    {"constraints.max_cross_entropy", "--max-cross-entropy"},
    {"priority", "--priority"},
    {"deadline", "--deadline"},
    {"history", "--history"},
    {"request_id", "--request-id"},
    {"neurons", "--neurons"},
    {"directions", "--directions"},
    {"seeds", "--seeds"},
    {"states", "--state"},
    {"id", "JOB"},
    {"text", "TEXT"},
};

// What keeps a connection from being made where there is a server: what gRPC says of it, and what
// that means.
struct ConnectionFailure {
  std::string_view sign;
  std::string_view meaning;
};
constexpr ConnectionFailure kConnectionFailures[] = {
    {"certificate verify failed",
     "its certificate is not from whom is trusted, or not valid now (--tls-ca names the "
     "authorities)"},
    {"is not in peer certificate",
     "its certificate is for other names; give --server one of those"},
    {"wrong version number", "it does not speak TLS; leave out --tls, or set EPO_TLS=0"},
    {"empty address list",
     "the files of --tls-ca, --tls-cert and --tls-key cannot be used together"},
    {"Socket closed",
     "it closed the connection; does it want TLS (--tls), or a certificate (--tls-cert and "
     "--tls-key)?"},
    {"Connection reset by peer",
     "it closed the connection; does it want TLS (--tls), or a certificate (--tls-cert and "
     "--tls-key)?"},
};

const char* CodeName(grpc::StatusCode code) {
  constexpr std::array kNames = {"OK",
                                 "CANCELLED",
                                 "UNKNOWN",
                                 "INVALID_ARGUMENT",
                                 "DEADLINE_EXCEEDED",
                                 "NOT_FOUND",
                                 "ALREADY_EXISTS",
                                 "PERMISSION_DENIED",
                                 "RESOURCE_EXHAUSTED",
                                 "FAILED_PRECONDITION",
                                 "ABORTED",
                                 "OUT_OF_RANGE",
                                 "UNIMPLEMENTED",
                                 "INTERNAL",
                                 "UNAVAILABLE",
                                 "DATA_LOSS",
                                 "UNAUTHENTICATED"};
  return code >= 0 && static_cast<size_t>(code) < kNames.size() ? kNames[code] : "UNKNOWN";
}

// The prompt's place in a path such as "prompts[3].ids"; -1 for another field.
int PromptIndex(std::string_view field) {
  for (const std::string_view list :
       {"spec.initial_prompts[", "spec.job.initial_prompts[", "prompts["}) {
    if (field.substr(0, list.size()) != list) continue;
    const std::string_view rest = field.substr(list.size());
    const std::string_view digits = rest.substr(0, rest.find(']'));
    int index = -1;
    if (absl::SimpleAtoi({digits.data(), digits.size()}, &index)) return index;
  }
  return -1;
}

// The flag that gave a term, from a path such as "objective.terms[2].logit.token" or, of a short
// objective, "objective.neuron.layer"; empty for another field.
std::string TermFlag(std::string_view name, const std::vector<std::string>& term_flags) {
  constexpr std::string_view kTerms = "objective.terms[";
  constexpr std::string_view kNeuron = "objective.neuron";
  if (name.substr(0, kNeuron.size()) == kNeuron) return term_flags.empty() ? "" : term_flags[0];
  if (name.substr(0, kTerms.size()) != kTerms) return "";
  const std::string_view rest = name.substr(kTerms.size());
  if (rest.find("].position") != std::string_view::npos) {
    return term_flags.empty() ? "" : "--position";
  }
  const std::string_view digits = rest.substr(0, rest.find(']'));
  size_t index = 0;
  if (!absl::SimpleAtoi({digits.data(), digits.size()}, &index) || index >= term_flags.size()) {
    return "";
  }
  return term_flags[index];
}

// The flag that gave one of a sweep's objectives, from a path such as "objectives[2].neuron.layer",
// or the most of them; empty for another field.
std::string ObjectiveFlag(std::string_view name, const std::vector<std::string>& flags) {
  constexpr std::string_view kObjectives = "objectives";
  if (name.substr(0, kObjectives.size()) != kObjectives || flags.empty()) return "";
  name.remove_prefix(kObjectives.size());
  // Ranges stand behind files, and are many.
  if (name.empty()) return flags.back();
  const std::string_view digits = name.substr(1, name.find(']') - 1);
  size_t index = 0;
  if (!absl::SimpleAtoi({digits.data(), digits.size()}, &index) || index >= flags.size()) return "";
  const bool position = name.find("].position") != std::string_view::npos;
  return position && flags[index] != "--objective" ? "--position" : flags[index];
}

// "--prefix" and the like for a field of a context.
std::string ContextFlag(std::string_view name) {
  if (name.substr(0, 9) != "contexts[") return "";
  const std::string_view field = name.substr(std::min(name.find(']') + 1, name.size()));
  if (field == ".prefix") return "--prefix";
  if (field == ".suffix") return "--suffix";
  return field == ".bos" ? "--bos" : "";
}

// What to do about a request that gRPC refused for its size on the server's behalf; empty for
// another error. The client itself takes whatever is answered.
std::string TooLarge(const grpc::Status& status) {
  int64_t size = 0;
  int64_t most = 0;
  if (status.error_code() != grpc::StatusCode::RESOURCE_EXHAUSTED ||
      std::sscanf(status.error_message().c_str(),
                  "Received message larger than max (%" SCNd64 " vs. %" SCNd64 ")", &size,
                  &most) != 2) {
    return "";
  }
  return absl::StrCat("the request is of ", size, " bytes, and the server takes ", most,
                      "; its flag --max-message-bytes sets that, and for uploaded vectors "
                      "--max-vector-bytes besides");
}

google::rpc::BadRequest BadRequestOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::BadRequest bad_request;
  if (!details.ParseFromString(status.error_details())) return bad_request;
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&bad_request)) break;
  }
  return bad_request;
}

}  // namespace

int ExitCodeOf(v1::Job::State state) {
  switch (state) {
    case v1::Job::SUCCEEDED:
      return kDone;
    case v1::Job::FAILED:
      return kJobFailed;
    case v1::Job::CANCELLED:
      return kJobCancelled;
    default:
      return kJobPending;
  }
}

bool HasRetryInfo(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return false;
  return std::any_of(details.details().begin(), details.details().end(), [](const auto& detail) {
    return detail.template Is<google::rpc::RetryInfo>();
  });
}

std::string ConnectionProblem(const grpc::Status& status) {
  constexpr std::string_view kLayer = "Failed to connect to remote host: ";
  const std::string& message = status.error_message();
  const size_t layer = message.rfind(kLayer);
  return layer == std::string::npos ? message : message.substr(layer + kLayer.size());
}

std::string FlagOfField(const std::string& field, const std::vector<std::string>& prompt_flags,
                        const std::vector<std::string>& term_flags) {
  if (const int index = PromptIndex(field); index >= 0) {
    return static_cast<size_t>(index) < prompt_flags.size() ? prompt_flags[index] : "";
  }
  if (field == "spec.initial_prompts" || field == "spec.job.initial_prompts" ||
      field == "prompts") {
    return prompt_flags.empty() ? "" : prompt_flags.front();
  }
  std::string_view name = field;
  if (name.substr(0, 5) == "spec.") name.remove_prefix(5);
  if (name.substr(0, 4) == "job.") name.remove_prefix(4);
  if (std::string flag = TermFlag(name, term_flags); !flag.empty()) return flag;
  if (std::string flag = ObjectiveFlag(name, term_flags); !flag.empty()) return flag;
  if (std::string flag = ContextFlag(name); !flag.empty()) return flag;
  // "neurons[1].last": the flag gives the list.
  if (name.substr(0, 8) == "neurons[") return "--neurons";
  if (name.substr(0, 11) == "directions[") return "--directions";
  if (name.substr(0, 6) == "seeds[") return "--seeds";
  // One flag gives all elements of a list.
  name = name.substr(0, name.find('['));
  for (const auto& [known, flag] : kFlags) {
    if (known == name) return std::string(flag);
  }
  return "";
}

std::vector<std::string> ErrorLines(const grpc::Status& status, const std::string& server,
                                    const std::vector<std::string>& prompt_flags,
                                    const std::vector<std::string>& term_flags) {
  std::vector<std::string> lines;
  const auto bad_request = BadRequestOf(status);
  for (const auto& violation : bad_request.field_violations()) {
    const std::string flag = FlagOfField(violation.field(), prompt_flags, term_flags);
    const std::string name =
        flag.empty() ? violation.field() : absl::StrCat(flag, " (", violation.field(), ")");
    lines.push_back(Escape(absl::StrCat(name, ": ", violation.description())));
  }
  if (!lines.empty()) return lines;
  const std::string& message = status.error_message();
  // With details it is an answer of the server's own, such as that it is shutting down.
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_details().empty()) {
    // Not for a connection that was there: "Socket closed" alone is a server that died.
    const bool connecting =
        message.rfind("failed to connect", 0) == 0 || message.rfind("empty address list", 0) == 0;
    for (const auto& [sign, meaning] : kConnectionFailures) {
      if (!connecting || message.find(sign) == std::string::npos) continue;
      return {Escape(absl::StrCat("cannot reach the server at ", server, ": ",
                                  absl::string_view(meaning.data(), meaning.size())))};
    }
    return {Escape(
        absl::StrCat("cannot reach the server at ", server, ": ", ConnectionProblem(status),
                     "; is epo-server running there? (--server or EPO_SERVER names another)"))};
  }
  if (std::string too_large = TooLarge(status); !too_large.empty()) return {std::move(too_large)};
  return {Escape(absl::StrCat(message.empty() ? "the server gave no reason" : message, " (",
                              CodeName(status.error_code()), ")"))};
}

int ReportError(const grpc::Status& status, const std::string& server,
                const std::vector<std::string>& prompt_flags,
                const std::vector<std::string>& term_flags) {
  for (const std::string& line : ErrorLines(status, server, prompt_flags, term_flags)) {
    std::fprintf(stderr, "epo: %s\n", line.c_str());
  }
  return static_cast<int>(kRpcError) + static_cast<int>(status.error_code());
}

}  // namespace epo::cli
