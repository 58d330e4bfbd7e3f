#include "client/cli/objective_flags.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <map>

#include "client/cli/arguments.h"
#include "client/cli/objective_arguments.h"

namespace epo::cli {
namespace {

// What `parsed` holds; else the user hears what is wrong with the flag.
template <class T>
T Valid(const std::string& flag, absl::StatusOr<T> parsed) {
  if (!parsed.ok()) throw CLI::ValidationError(flag, std::string(parsed.status().message()));
  return *std::move(parsed);
}

// Makes terms of the flags.
class TermReader {
 public:
  TermReader(const ObjectiveFlags& flags, ObjectiveRequest& out) : flags_(flags), out_(out) {}

  void Read(const CLI::Option* option, const std::string& text) {
    const std::string flag = option->get_name();
    if (option == flags_.versus) return ReadVersus(flag, text);
    v1::Term term;
    if (option == flags_.neuron) {
      *term.mutable_neuron() = Valid(flag, ParseNeuron(text, flags_.layer));
    } else if (option == flags_.direction) {
      const PlacedVector placed = Valid(flag, ParsePlacedVector(text));
      v1::DirectionTerm& direction = *term.mutable_direction();
      *direction.mutable_vector() = placed.vector;
      direction.set_layer(placed.place.layer);
      direction.set_point(placed.place.point);
      direction.set_standardized(flags_.standardized);
    } else if (option == flags_.feature) {
      const PlacedVector placed = Valid(flag, ParsePlacedVector(text));
      *term.mutable_feature()->mutable_encoder() = placed.vector;
      term.mutable_feature()->set_layer(placed.place.layer);
      term.mutable_feature()->set_point(placed.place.point);
    } else if (option == flags_.logit) {
      *term.mutable_logit()->mutable_token() = ParseToken(text);
    } else if (option == flags_.logit_difference) {
      *term.mutable_logit_difference()->mutable_token() = ParseToken(text);
    } else if (option == flags_.attention) {
      *term.mutable_attention() = Valid(flag, ParseAttention(text));
    } else if (option == flags_.continuation) {
      term.mutable_continuation()->mutable_text()->set_text(text);
    } else if (option == flags_.cosine) {
      *term.mutable_cosine() = Valid(flag, ParseCosine(text));
    } else {
      return;
    }
    if (flags_.reading.position && !term.has_continuation()) {
      *term.mutable_position() = Valid("--position", ParsePosition(*flags_.reading.position));
    }
    *out_.objective.add_terms() = std::move(term);
    // The layer of "--layer 8 --neuron 1" is another flag's.
    out_.term_flags.push_back(option == flags_.neuron && !absl::StrContains(text, ':') ? "" : flag);
  }

 private:
  void ReadVersus(const std::string& flag, const std::string& text) {
    auto& terms = *out_.objective.mutable_terms();
    if (terms.empty() || !terms.rbegin()->has_logit_difference() ||
        terms.rbegin()->logit_difference().has_other()) {
      throw CLI::ValidationError(flag, "belongs behind a --logit-diff");
    }
    *terms.rbegin()->mutable_logit_difference()->mutable_other() = ParseToken(text);
  }

  const ObjectiveFlags& flags_;
  ObjectiveRequest& out_;
};

void ReadTerms(const ObjectiveFlags& flags, ObjectiveRequest& out) {
  TermReader reader(flags, out);
  std::map<const CLI::Option*, size_t> read;
  for (const CLI::Option* option : flags.app->parse_order()) {
    const size_t index = read[option]++;
    if (index < option->results().size()) {
      reader.Read(option, Unprotect(option->results()[index]));
    }
  }
}

// Refuses flags of terms that are not there, which would be left out without a word.
void CheckTermFlags(const ObjectiveFlags& flags, const v1::Objective& objective) {
  if (flags.standardized && flags.direction->count() == 0) {
    throw CLI::ValidationError("--standardized", "is said of a --direction, and there is none");
  }
  const std::vector<std::string>& neurons = flags.neuron->results();
  const auto has_layer = [](const std::string& text) { return absl::StrContains(text, ':'); };
  if (flags.layer && std::all_of(neurons.begin(), neurons.end(), has_layer)) {
    throw CLI::ValidationError("--layer", "is said of a --neuron K alone, and there is none");
  }
  const auto follows = [](const v1::Term& term) { return term.has_continuation(); };
  if (flags.reading.position &&
      std::all_of(objective.terms().begin(), objective.terms().end(), follows)) {
    throw CLI::ValidationError("--position",
                               "is not said of a --continuation, which follows the whole sequence");
  }
}

// One term that a server of any age knows.
void Shorten(v1::Objective& objective) {
  if (objective.terms_size() != 1 || !objective.terms(0).has_neuron() ||
      objective.terms(0).has_position()) {
    return;
  }
  const v1::NeuronObjective neuron = objective.terms(0).neuron();
  objective.clear_terms();
  *objective.mutable_neuron() = neuron;
}

// The i-th of the texts, the only one, or none.
std::string TextOf(const std::vector<std::string>& texts, size_t i) {
  if (texts.empty()) return "";
  return Unprotect(texts[texts.size() == 1 ? 0 : i]);
}

std::string TemplateOf(Session& session, grpc::Status* status) {
  v1::GetServerInfoResponse info;
  *status = session.client().Call(&Client::Stub::GetServerInfo, v1::GetServerInfoRequest(), &info);
  return info.model().chat_template();
}

}  // namespace

void AddReadingFlags(CLI::App* app, ReadingFlags& flags, std::vector<CLI::Option*>& topic) {
  topic.push_back(app->add_option("--position", flags.position,
                                  "Where: 3, -1 (the default), max, mean:2:5, prompt:0")
                      ->option_text("WHERE"));
  topic.push_back(app->add_flag("--minimize", flags.minimize, "Make it small instead of large"));
}

void AddContextFlags(CLI::App* app, ContextFlags& flags, std::vector<CLI::Option*>& topic) {
  const auto text = [&](const char* name, const char* description) {
    topic.push_back(AddPromptOption(app, name, description)->option_text("TEXT"));
    return topic.back();
  };
  flags.prefix = text("--prefix", "Fixed text before the prompt; repeated: contexts");
  flags.suffix = text("--suffix", "Fixed text after it; once, or once a --prefix");
  topic.push_back(app->add_flag("--bos", flags.bos, "Begin with the model's beginning token"));
  topic.push_back(
      app->add_flag("--chat", flags.chat, "The prompt as a user's message to the model"));
  topic.push_back(app->add_flag("--count-suffix", flags.count_suffix,
                                "The cross-entropy counts the suffix, too"));
  topic.push_back(app->add_option("--across", flags.across, "Of several contexts: mean or min")
                      ->check(CLI::IsMember({"mean", "min"}).description(""))
                      ->option_text("HOW"));
}

void AddObjectiveFlags(CLI::App* app, ObjectiveFlags& flags) {
  flags.app = app;
  std::vector<CLI::Option*> topic;
  const auto text = [&](const char* name, const char* value, const char* description) {
    topic.push_back(AddPromptOption(app, name, description)->option_text(value));
    return topic.back();
  };
  flags.neuron = text("--neuron", "L:K", "Neuron K of layer L's MLP");
  topic.push_back(app->add_option("--layer", flags.layer, "L, where --neuron is K alone")
                      ->transform(Int32())
                      ->option_text("L"));
  flags.direction =
      text("--direction", "VECTOR@L", "Residual stream at L, L:mid or L:post . FILE.npy[:ROW]");
  topic.push_back(app->add_flag("--standardized", flags.standardized,
                                "... brought to mean 0 and standard deviation 1 first"));
  flags.feature =
      text("--feature", "VECTOR@L", "A feature of a sparse autoencoder, by its encoder");
  flags.cosine =
      text("--cosine", "VECTOR@L", "Cosine of the residual stream with a vector, or a text's");
  flags.attention = text("--attention", "L:H:KEY", "What head H of layer L pays the token at KEY");
  flags.logit = text("--logit", "TOKEN", "Logit of a token: its text (\" dog\"), or id:N");
  flags.logit_difference = text("--logit-diff", "TOKEN", "Its logit minus the greatest other's");
  flags.versus = text("--versus", "TOKEN", "... minus this one's, behind --logit-diff");
  flags.continuation = text("--continuation", "TEXT", "Log probability of a text that follows");
  AddReadingFlags(app, flags.reading, topic);
  topic.push_back(app->add_option("--objective", flags.file,
                                  "All of it as JSON, an epo.v1.Objective; says more")
                      ->option_text("FILE"));
  AddContextFlags(app, flags.contexts, topic);
  AddTopic(app, kObjectiveTopic, "What to maximise: --neuron, --logit, --direction, ...", topic);
}

std::string GivenObjectiveFlag(const ObjectiveFlags& flags) {
  for (const CLI::Option* option : flags.app->get_options()) {
    if (option->get_group() == kObjectiveTopic && option->count() > 0) return option->get_name();
  }
  return "";
}

ContextRequest ReadContexts(const ContextFlags& flags, Session& session, grpc::Status* status) {
  ContextRequest out;
  const std::vector<std::string>& prefixes = flags.prefix->results();
  const std::vector<std::string>& suffixes = flags.suffix->results();
  size_t count = std::max(prefixes.size(), suffixes.size());
  if (prefixes.size() > 1 && suffixes.size() > 1 && prefixes.size() != suffixes.size()) {
    throw CLI::ValidationError("--suffix",
                               absl::StrCat("is given ", suffixes.size(), " times and --prefix ",
                                            prefixes.size(), "; give as many, or one for all"));
  }
  if (count == 0 && (flags.bos || flags.chat)) count = 1;
  if (flags.across && count == 0) {
    throw CLI::ValidationError("--across",
                               "is said of contexts; give --prefix, --suffix, --bos or --chat");
  }
  if (flags.count_suffix && suffixes.empty() && !flags.chat) {
    throw CLI::ValidationError("--count-suffix", "is said of a --suffix or --chat");
  }
  v1::Context chat;
  if (flags.chat) {
    const std::string chat_template = TemplateOf(session, status);
    if (!status->ok()) return out;
    chat = Valid("--chat", ChatContext(chat_template));
  }
  for (size_t i = 0; i < count; ++i) {
    v1::Context& context = *out.contexts.Add();
    const std::string prefix = chat.prefix().text() + TextOf(prefixes, i);
    const std::string suffix = TextOf(suffixes, i) + chat.suffix().text();
    if (!prefix.empty()) context.mutable_prefix()->set_text(prefix);
    if (!suffix.empty()) context.mutable_suffix()->set_text(suffix);
    context.set_bos(flags.bos);
  }
  if (flags.count_suffix) out.fluency_window = v1::PROMPT_AND_SUFFIX;
  if (flags.across) out.across = *flags.across == "min" ? v1::MIN : v1::MEAN;
  return out;
}

ObjectiveRequest ReadObjective(const ObjectiveFlags& flags, Session& session,
                               grpc::Status* status) {
  ObjectiveRequest out;
  ReadTerms(flags, out);
  if (flags.file) {
    if (!out.objective.terms().empty() || flags.reading.position || flags.reading.minimize ||
        flags.standardized || flags.layer) {
      throw CLI::ValidationError("--objective", "says all of it; leave the other flags out");
    }
    out.objective = Valid("--objective", ReadObjectiveFile(*flags.file));
  } else {
    if (out.objective.terms().empty()) {
      throw CLI::RequiredError("--neuron, --objective or another flag of --help-objective");
    }
    CheckTermFlags(flags, out.objective);
    Shorten(out.objective);
    if (flags.reading.minimize) out.objective.set_goal(v1::Objective::MINIMIZE);
  }
  out.contexts = ReadContexts(flags.contexts, session, status);
  return out;
}

}  // namespace epo::cli
