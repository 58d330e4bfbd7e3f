#include "client/cli/objective_arguments.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "client/cli/read_file.h"
#include "core/base/float_matrix.h"

namespace epo::cli {
namespace {

// 'v' and 32 hexadecimal digits.
constexpr size_t kNameSize = 33;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

absl::Status Bad(std::string_view text, absl::string_view how) {
  return absl::InvalidArgumentError(absl::StrCat("'", View(text), "' ", how));
}

// The integers of "1:2:3"; none for anything else.
std::optional<std::vector<int32_t>> Integers(absl::string_view text) {
  std::vector<int32_t> out;
  for (const absl::string_view word : absl::StrSplit(text, ':')) {
    if (!absl::SimpleAtoi(word, &out.emplace_back())) return std::nullopt;
  }
  return out;
}

bool IsVectorName(absl::string_view text) {
  return text.size() == kNameSize && text.front() == 'v' &&
         std::all_of(text.begin() + 1, text.end(), [](char c) {
           return absl::ascii_isxdigit(static_cast<unsigned char>(c)) && !absl::ascii_isupper(c);
         });
}

absl::StatusOr<Place> ParsePlace(absl::string_view text) {
  Place place;
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  bool good = absl::SimpleAtoi(parts.first, &place.layer);
  if (parts.second == "pre") {
    place.point = v1::PRE_BLOCK;
  } else if (parts.second == "mid") {
    place.point = v1::POST_ATTENTION;
  } else if (parts.second == "post") {
    place.point = v1::POST_BLOCK;
  } else if (!parts.second.empty() || absl::StrContains(text, ':')) {
    good = false;
  }
  if (good) return place;
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text,
      "' is no layer with a point, as in 12, 12:pre, 12:mid (after attention) or 12:post"));
}

// What stands before the last '@', and the place behind it.
absl::StatusOr<std::pair<absl::string_view, Place>> SplitPlace(absl::string_view text) {
  const size_t at = text.rfind('@');
  if (at == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' names no layer; give it behind '@', as in ", text, "@12"));
  }
  const absl::StatusOr<Place> place = ParsePlace(text.substr(at + 1));
  if (!place.ok()) return place.status();
  return std::pair(text.substr(0, at), *place);
}

// A source of a vector without the row behind it, and that row.
std::pair<absl::string_view, std::optional<int32_t>> SplitRow(absl::string_view text) {
  const size_t colon = text.rfind(':');
  int32_t row = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(text.substr(colon + 1), &row)) {
    return {text, std::nullopt};
  }
  return {text.substr(0, colon), row};
}

bool NamesVector(absl::string_view text) {
  const absl::string_view source = SplitRow(text).first;
  return absl::EndsWith(source, ".npy") || IsVectorName(source);
}

absl::StatusOr<v1::Vector> ReadVector(absl::string_view text) {
  const auto [source, row] = SplitRow(text);
  v1::Vector out;
  if (IsVectorName(source)) {
    out.set_name(std::string(source));
    if (row.has_value()) out.set_row(*row);
    return out;
  }
  if (!absl::EndsWith(source, ".npy")) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", source,
                     "' is neither a .npy file nor the name of an uploaded vector; epo "
                     "upload-vector takes safetensors"));
  }
  const std::string path(source);
  const absl::StatusOr<std::string> content = ReadFile(path);
  if (!content.ok()) return content.status();
  const absl::StatusOr<FloatMatrix> matrix = ParseNpy(*content);
  if (!matrix.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " ", matrix.status().message()));
  }
  if (!row.has_value() && matrix->rows > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds ", matrix->rows, " vectors; say which, as in ", path, ":0@12"));
  }
  const int32_t index = row.value_or(0);
  if (index < 0 || index >= matrix->rows) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has no row ", index, "; give 0 to ", matrix->rows - 1));
  }
  out.set_values(reinterpret_cast<const char*>(matrix->values.data() + index * matrix->width),
                 matrix->width * sizeof(float));
  return out;
}

// The line of the one place where `name` stands as a key of `text`; 0 when there is not just one.
int LineOfKey(const std::string& text, absl::string_view name) {
  const std::string key = absl::StrCat("\"", name, "\"");
  const size_t found = text.find(key);
  if (name.empty() || found == std::string::npos ||
      text.find(key, found + 1) != std::string::npos) {
    return 0;
  }
  return 1 + static_cast<int>(std::count(text.begin(), text.begin() + found, '\n'));
}

// The last part of the path or the name in a message such as "(terms[0]) nuron: Cannot find field."
int LineOfError(const std::string& text, absl::string_view message) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(message, absl::ByAnyChar(" ():.[]\"'"), absl::SkipEmpty());
  for (auto word = words.rbegin(); word != words.rend(); ++word) {
    if (const int line = LineOfKey(text, *word); line > 0) return line;
  }
  return 0;
}

}  // namespace

absl::StatusOr<v1::NeuronObjective> ParseNeuron(std::string_view text,
                                                std::optional<int32_t> layer) {
  const std::optional<std::vector<int32_t>> numbers = Integers(View(text));
  v1::NeuronObjective out;
  if (numbers.has_value() && numbers->size() == 2) {
    out.set_layer((*numbers)[0]);
    out.set_neuron((*numbers)[1]);
    return out;
  }
  if (!numbers.has_value() || numbers->size() != 1) {
    return Bad(text, "is no neuron; give LAYER:NEURON, as in 8:1");
  }
  if (!layer.has_value()) {
    return Bad(text, absl::StrCat("lacks its layer; give LAYER:NEURON, as in 8:", View(text),
                                  ", or --layer"));
  }
  out.set_layer(*layer);
  out.set_neuron((*numbers)[0]);
  return out;
}

absl::StatusOr<v1::AttentionTerm> ParseAttention(std::string_view text) {
  const std::optional<std::vector<int32_t>> numbers = Integers(View(text));
  if (!numbers.has_value() || numbers->size() != 3) {
    return Bad(text, "is not LAYER:HEAD:KEY, as in 5:2:0 for the first token's key");
  }
  v1::AttentionTerm out;
  out.set_layer((*numbers)[0]);
  out.set_head((*numbers)[1]);
  out.set_key((*numbers)[2]);
  return out;
}

absl::StatusOr<v1::Position> ParsePosition(std::string_view text) {
  v1::Position out;
  absl::string_view rest = View(text);
  if (absl::ConsumePrefix(&rest, "prompt:")) out.set_frame(v1::Position::PROMPT);
  v1::Window* window = nullptr;
  if (absl::ConsumePrefix(&rest, "max")) window = out.mutable_max();
  if (window == nullptr && absl::ConsumePrefix(&rest, "mean")) window = out.mutable_mean();
  const bool ends = window != nullptr && absl::ConsumePrefix(&rest, ":");
  if (window != nullptr && !ends && rest.empty()) return out;
  const std::optional<std::vector<int32_t>> numbers = Integers(rest);
  if (!numbers.has_value() || numbers->size() != (window == nullptr ? 1 : 2) ||
      (window != nullptr && !ends)) {
    return Bad(text, "is no position, as in 3, -1, max, mean:2:5 or prompt:max:0:-1");
  }
  if (window == nullptr) {
    out.set_index((*numbers)[0]);
  } else {
    window->set_first((*numbers)[0]);
    window->set_last((*numbers)[1]);
  }
  return out;
}

v1::TokenReference ParseToken(std::string_view text) {
  v1::TokenReference out;
  absl::string_view rest = View(text);
  int32_t id = 0;
  if (absl::ConsumePrefix(&rest, "id:") && absl::SimpleAtoi(rest, &id)) {
    out.set_id(id);
  } else {
    out.set_text(std::string(text));
  }
  return out;
}

absl::StatusOr<PlacedVector> ParsePlacedVector(std::string_view text) {
  const auto parts = SplitPlace(View(text));
  if (!parts.ok()) return parts.status();
  absl::StatusOr<v1::Vector> vector = ReadVector(parts->first);
  if (!vector.ok()) return vector.status();
  return PlacedVector{*std::move(vector), parts->second};
}

absl::StatusOr<v1::CosineTerm> ParseCosine(std::string_view text) {
  const auto parts = SplitPlace(View(text));
  if (!parts.ok()) return parts.status();
  v1::CosineTerm out;
  out.set_layer(parts->second.layer);
  out.set_point(parts->second.point);
  if (!NamesVector(parts->first)) {
    out.mutable_text()->set_text(std::string(parts->first));
    return out;
  }
  absl::StatusOr<v1::Vector> vector = ReadVector(parts->first);
  if (!vector.ok()) return vector.status();
  *out.mutable_vector() = *std::move(vector);
  return out;
}

absl::StatusOr<v1::Objective> ReadObjectiveFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const auto bad = [&](int line, absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, line > 0 ? absl::StrCat(", line ", line) : "", ": ", what));
  };
  // protobuf's parser tells where a field is, but not where the JSON is none.
  try {
    [[maybe_unused]] const auto json = nlohmann::json::parse(*text);
  } catch (const nlohmann::json::parse_error& error) {
    const auto end = text->begin() + std::min(error.byte == 0 ? 0 : error.byte - 1, text->size());
    return bad(1 + static_cast<int>(std::count(text->begin(), end, '\n')),
               "is no JSON from here on");
  }
  v1::Objective out;
  const auto status = google::protobuf::util::JsonStringToMessage(*text, &out);
  if (status.ok()) return out;
  const std::string message(status.message().data(), status.message().size());
  return bad(LineOfError(*text, message), absl::StrCat("is no Objective: ", message));
}

absl::StatusOr<v1::Context> ChatContext(std::string_view chat_template) {
  if (chat_template.empty()) {
    return absl::FailedPreconditionError(
        "the served model has no chat template; give --prefix and --suffix instead");
  }
  // Jinja's blanks between the parts mean nothing; a line's end is written in two ways.
  const std::string compact =
      absl::StrReplaceAll(View(chat_template), {{" ", ""}, {"\\n", "\n"}, {"\"", "'"}});
  absl::string_view rest = compact;
  const bool begins = absl::ConsumePrefix(&rest, "{%formessageinmessages%}");
  const bool ends = absl::ConsumeSuffix(
      &rest,
      "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}"
      "{%endfor%}{%ifadd_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}");
  const bool has_system = absl::ConsumePrefix(
      &rest, "{%ifloop.firstandmessages[0]['role']!='system'%}{{'<|im_start|>system\n");
  const bool system_ends = absl::ConsumeSuffix(&rest, "<|im_end|>\n'}}{%endif%}");
  if (!begins || !ends || has_system != system_ends || (!has_system && !rest.empty()) ||
      absl::StrContains(rest, '\'')) {
    return absl::UnimplementedError(
        "the served model's chat template is not ChatML's usual one, which is all that --chat "
        "knows; give --prefix and --suffix instead");
  }
  std::string prefix;
  if (has_system) {
    // With the blanks of its text, in which no quote stands.
    const std::string whole = absl::StrReplaceAll(View(chat_template), {{"\\n", "\n"}});
    const absl::string_view mark = "<|im_start|>system\n";
    const size_t from = whole.find(std::string(mark));
    prefix = whole.substr(from, whole.find("<|im_end|>\n", from) + 11 - from);
  }
  v1::Context out;
  out.mutable_prefix()->set_text(prefix + "<|im_start|>user\n");
  out.mutable_suffix()->set_text("<|im_end|>\n<|im_start|>assistant\n");
  return out;
}

}  // namespace epo::cli
