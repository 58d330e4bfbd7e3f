#include "core/objective/validate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"

namespace epo {
namespace {

// Bounds on what one prompt may cost; far above what anybody would read.
constexpr size_t kMaxTerms = 64;
constexpr size_t kMaxContexts = 64;

bool FiniteFloat(double value) { return std::isfinite(static_cast<float>(value)); }

class Checker {
 public:
  Checker(const Objective& objective, const ModelConfig& config, std::optional<int> tokens)
      : objective_(objective), config_(config), tokens_(tokens) {
    for (const Context& context : objective.contexts) {
      contexts_.push_back({static_cast<int64_t>(context.prefix.size()),
                           static_cast<int64_t>(context.suffix.size())});
    }
    if (contexts_.empty()) contexts_.emplace_back();
  }

  FieldViolations Check() {
    CheckCount(objective_.contexts.size(), kMaxContexts, "contexts");
    CheckCount(objective_.terms.size(), kMaxTerms, "terms");
    if (!violations_.empty()) return violations_;
    for (size_t i = 0; i < objective_.contexts.size(); ++i) {
      const std::string path = absl::StrCat("contexts[", i, "]");
      CheckTokens(objective_.contexts[i].prefix, path + ".prefix");
      CheckTokens(objective_.contexts[i].suffix, path + ".suffix");
    }
    for (size_t i = 0; i < objective_.terms.size(); ++i) {
      CheckTerm(objective_.terms[i], absl::StrCat("terms[", i, "]"));
    }
    CheckWeights();
    if (!(objective_.temperature > 0) || !FiniteFloat(objective_.temperature)) {
      Add("temperature",
          absl::StrCat("is ", objective_.temperature, ", but must be a finite number above 0"));
    }
    CheckRoom();
    return violations_;
  }

 private:
  // Lengths of a context's fixed parts.
  struct Fixed {
    int64_t prefix = 0;
    int64_t suffix = 0;
  };

  void Add(const std::string& field, const std::string& description) {
    violations_.push_back({field, description});
  }

  void Range(int64_t value, int64_t size, const std::string& field) {
    if (value >= 0 && value < size) return;
    Add(field, absl::StrCat("is ", value, ", but must be from 0 to ", size - 1));
  }

  void CheckCount(size_t count, size_t most, const std::string& field) {
    if (count <= most) return;
    Add(field, absl::StrCat("has ", count, " entries, but may have at most ", most));
  }

  void CheckTokens(const Prompt& tokens, const std::string& field) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] >= 0 && tokens[i] < config_.vocab_size) continue;
      Add(field,
          absl::StrCat("id ", tokens[i], " at position ", i,
                       " is not in the vocabulary; ids go from 0 to ", config_.vocab_size - 1));
      return;
    }
  }

  void CheckToken(TokenId token, const std::string& field) {
    if (token >= 0 && token < config_.vocab_size) return;
    Add(field,
        absl::StrCat("is the id ", token, ", which is not in the vocabulary; ids go from 0 to ",
                     config_.vocab_size - 1));
  }

  void CheckVector(const VectorValues& vector, const std::string& field) {
    if (vector == nullptr) return Add(field, "is required");
    const int64_t size = static_cast<int64_t>(vector->size());
    if (size != config_.hidden_size) {
      return Add(field, absl::StrCat("has ", size, " numbers, but the model's hidden size is ",
                                     config_.hidden_size));
    }
    const auto bad = std::find_if_not(vector->begin(), vector->end(),
                                      [](float value) { return std::isfinite(value); });
    if (bad != vector->end()) {
      return Add(field, absl::StrCat("holds ", *bad, " at index ", bad - vector->begin(),
                                     "; all its numbers must be finite"));
    }
    if (std::all_of(vector->begin(), vector->end(), [](float value) { return value == 0; })) {
      Add(field, "is all 0; give a vector with a direction");
    }
  }

  void CheckFinite(double value, const std::string& field) {
    if (FiniteFloat(value)) return;
    Add(field, absl::StrCat("is ", value, ", but must be a finite float32 number"));
  }

  void CheckKind(const NeuronTerm& term, const std::string& path) {
    Range(term.layer, config_.layers, path + "neuron.layer");
    Range(term.neuron, config_.intermediate_size, path + "neuron.neuron");
  }

  void CheckKind(const DirectionTerm& term, const std::string& path) {
    Range(term.layer, config_.layers, path + "direction.layer");
    CheckVector(term.vector, path + "direction.vector");
  }

  void CheckKind(const FeatureTerm& term, const std::string& path) {
    Range(term.layer, config_.layers, path + "feature.layer");
    CheckVector(term.encoder, path + "feature.encoder");
    if (term.decoder_bias != nullptr && !AllZero(*term.decoder_bias)) {
      CheckVector(term.decoder_bias, path + "feature.decoder_bias");
    }
    CheckFinite(term.bias, path + "feature.bias");
    CheckFinite(term.threshold, path + "feature.threshold");
  }

  // A bias of the right length may be all 0.
  bool AllZero(const std::vector<float>& values) const {
    return static_cast<int64_t>(values.size()) == config_.hidden_size &&
           std::all_of(values.begin(), values.end(), [](float value) { return value == 0; });
  }

  void CheckKind(const AttentionTerm& term, const std::string& path) {
    Range(term.layer, config_.layers, path + "attention.layer");
    Range(term.head, config_.heads, path + "attention.head");
  }

  void CheckKind(const OutputTerm& term, const std::string& path) {
    Range(term.layer, config_.layers, path + "output.layer");
    if (term.head.has_value()) Range(*term.head, config_.heads, path + "output.head");
    CheckVector(term.vector, path + "output.vector");
  }

  void CheckKind(const LogitTerm& term, const std::string& path) {
    CheckToken(term.token, path + "logit.token");
  }

  void CheckKind(const LogitDifferenceTerm& term, const std::string& path) {
    CheckToken(term.token, path + "logit_difference.token");
    if (!term.other.has_value()) return;
    CheckToken(*term.other, path + "logit_difference.other");
    if (*term.other == term.token) {
      Add(path + "logit_difference.other",
          absl::StrCat("is the id ", term.token,
                       ", the token itself, so the difference is always 0; give another token"));
    }
  }

  void CheckKind(const ContinuationTerm& term, const std::string& path) {
    const std::string field = path + "continuation.text";
    if (term.tokens.empty()) return Add(field, "is empty; give at least one token");
    CheckTokens(term.tokens, field);
  }

  void CheckKind(const CosineTerm& term, const std::string& path) {
    Range(term.layer, config_.layers, path + "cosine.layer");
    if (term.vector != nullptr && !term.text.empty()) {
      return Add(path + "cosine", "has a vector and a text; give one of them");
    }
    if (term.vector != nullptr) return CheckVector(term.vector, path + "cosine.vector");
    if (term.text.empty()) return Add(path + "cosine", "needs a vector or a text");
    CheckTokens(term.text, path + "cosine.text");
    if (static_cast<int64_t>(term.text.size()) > config_.context_length) {
      Add(path + "cosine.text",
          absl::StrCat("has ", term.text.size(), " tokens, but the model's context is ",
                       config_.context_length, " tokens"));
    }
  }

  void CheckTerm(const Term& term, const std::string& path) {
    std::visit([&](const auto& kind) { CheckKind(kind, path + "."); }, term.kind);
    CheckFinite(term.weight, path + ".weight");
    if (term.scale.has_value() &&
        (!(*term.scale > 0) || !FiniteFloat(*term.scale) || static_cast<float>(*term.scale) == 0)) {
      Add(path + ".constant_scale",
          absl::StrCat("is ", *term.scale, ", but must be a finite float32 number above 0"));
    }
    if (std::holds_alternative<ContinuationTerm>(term.kind)) {
      if (term.position != Position()) {
        Add(path + ".position", "is of no use to a continuation, which follows the whole sequence");
      }
      return;
    }
    for (size_t context = 0; context < contexts_.size(); ++context) {
      // One finding a term: contexts that are alike would repeat it.
      const size_t before = violations_.size();
      CheckPosition(term, path, context);
      if (violations_.size() > before) return;
    }
  }

  // Where a frame begins in the sequence and how long it is; no length while that is unknown.
  struct Frame {
    int64_t begin = 0;
    std::optional<int64_t> length;
  };

  Frame FrameOf(const Position& position, const Fixed& fixed) const {
    if (position.frame == Position::Frame::kPrompt) return {fixed.prefix, tokens_};
    if (!tokens_.has_value()) return {0, std::nullopt};
    return {0, fixed.prefix + *tokens_ + fixed.suffix};
  }

  // "sequence of contexts[2]".
  std::string NameFrame(const Position& position, size_t context) const {
    if (position.frame == Position::Frame::kPrompt) return "prompt";
    if (objective_.contexts.size() <= 1) return "sequence";
    return absl::StrCat("sequence of contexts[", context, "]");
  }

  // The index counted from the sequence's start; none after a finding, or while it is unknown.
  std::optional<int64_t> Resolve(int64_t index, const Frame& frame, const std::string& name,
                                 const std::string& field) {
    if (!frame.length.has_value()) {
      return index >= 0 ? std::optional(frame.begin + index) : std::nullopt;
    }
    if (index >= *frame.length || index < -*frame.length) {
      Add(field, absl::StrCat("is ", index, ", but the ", name, " has ", *frame.length,
                              " tokens; give ", -*frame.length, " to ", *frame.length - 1));
      return std::nullopt;
    }
    return frame.begin + (index < 0 ? index + *frame.length : index);
  }

  void CheckPosition(const Term& term, const std::string& path, size_t context) {
    const Position& position = term.position;
    const Fixed& fixed = contexts_[context];
    const Frame frame = FrameOf(position, fixed);
    const std::string name = NameFrame(position, context);
    const char* reduce = position.reduce == Position::Reduce::kMax ? ".max" : ".mean";
    const std::string where = absl::StrCat(path, ".position");
    std::optional<int64_t> first;
    std::optional<int64_t> last;
    if (position.reduce == Position::Reduce::kOne) {
      first = last = Resolve(position.first, frame, name, where + ".index");
    } else {
      const size_t before = violations_.size();
      first = Resolve(position.first, frame, name, where + reduce + ".first");
      last = Resolve(position.last, frame, name, where + reduce + ".last");
      if (violations_.size() == before) CheckOrder(position, frame, first, last, where + reduce);
    }
    if (last.has_value() && *last < fixed.prefix) {
      Add(where, absl::StrCat("reads only the first ", fixed.prefix, " tokens of the ", name,
                              ", the fixed prefix, which no prompt changes; read a later token"));
    }
    if (const auto* attention = std::get_if<AttentionTerm>(&term.kind)) {
      CheckKey(*attention, path, frame, name, first);
    }
  }

  // `first` and `last` of a window that is not known to be in order.
  void CheckOrder(const Position& position, const Frame& frame, std::optional<int64_t> first,
                  std::optional<int64_t> last, const std::string& field) {
    // Without the length, ends that count from the same side can be compared.
    const bool same_side = (position.first < 0) == (position.last < 0);
    const bool known = frame.length.has_value() ? first.has_value() && last.has_value() : same_side;
    if (!known) return;
    const bool good = frame.length.has_value() ? *first <= *last : position.first <= position.last;
    if (good) return;
    Add(field, absl::StrCat("goes from ", position.first, " to ", position.last,
                            ", but its first token must not be after its last"));
  }

  void CheckKey(const AttentionTerm& term, const std::string& path, const Frame& frame,
                const std::string& name, std::optional<int64_t> query) {
    const std::string field = path + ".attention.key";
    const std::optional<int64_t> key = Resolve(term.key, frame, name, field);
    if (!key.has_value() || !query.has_value() || *key <= *query) return;
    Add(field,
        absl::StrCat("is ", term.key, ", which is after the query at token ", *query - frame.begin,
                     " of the ", name, "; a head attends to no later token"));
  }

  void CheckWeights() {
    if (objective_.terms.empty()) return Add("terms", "is required; give at least one term");
    const auto zero = [](const Term& term) { return term.weight == 0; };
    if (std::all_of(objective_.terms.begin(), objective_.terms.end(), zero)) {
      Add("terms", "have only weights of 0, so that nothing is maximised");
    }
  }

  void CheckRoom() {
    int64_t longest = 0;
    std::string field;
    for (size_t i = 0; i < objective_.terms.size(); ++i) {
      const auto* term = std::get_if<ContinuationTerm>(&objective_.terms[i].kind);
      if (term == nullptr || static_cast<int64_t>(term->tokens.size()) <= longest) continue;
      longest = static_cast<int64_t>(term->tokens.size());
      field = absl::StrCat("terms[", i, "].continuation.text");
    }
    const int64_t prompt = tokens_.value_or(1);
    // Of a prompt that is too long by itself there is nothing more to say.
    if (prompt > config_.context_length) return;
    for (size_t i = 0; i < contexts_.size(); ++i) {
      const Fixed& fixed = contexts_[i];
      if (fixed.prefix + prompt + fixed.suffix + longest <= config_.context_length) continue;
      const bool of_context = fixed.prefix + fixed.suffix > 0;
      Add(of_context ? absl::StrCat("contexts[", i, "]") : field,
          absl::StrCat("leaves no room for ",
                       tokens_.has_value() ? absl::StrCat("a prompt of ", prompt, " tokens")
                                           : std::string("a prompt"),
                       ": ", fixed.prefix, " tokens before it, ", fixed.suffix,
                       " after it and a continuation of ", longest, ", but the model's context is ",
                       config_.context_length, " tokens"));
    }
  }

  const Objective& objective_;
  const ModelConfig& config_;
  const std::optional<int> tokens_;
  std::vector<Fixed> contexts_;
  FieldViolations violations_;
};

}  // namespace

FieldViolations ValidateObjective(const Objective& objective, const ModelConfig& config,
                                  std::optional<int> tokens) {
  return Checker(objective, config, tokens).Check();
}

}  // namespace epo
