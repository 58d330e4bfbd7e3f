#include "client/cli/constraint_flags.h"

#include "client/cli/arguments.h"
#include "client/cli/command.h"

namespace epo::cli {
namespace {

// What `parsed` holds; else the user hears what is wrong with the flag.
template <class T>
T Valid(const char* flag, absl::StatusOr<T> parsed) {
  if (!parsed.ok()) throw CLI::ValidationError(flag, std::string(parsed.status().message()));
  return *std::move(parsed);
}

}  // namespace

void AddConstraintFlags(CLI::App* app, ConstraintFlags& flags) {
  CLI::Option* ban =
      AddPromptOption(app, "--ban", "A text that no prompt has, in any case; or many");
  flags.ban = ban;
  AddTopic(
      app, "constraints", "Prompts not to use: --ban, --ascii, --freeze, ...",
      {app->add_flag("--allow-special-tokens", flags.allow_special_tokens,
                     "Let special tokens be proposed"),
       ban->option_text("TEXT"),
       app->add_option("--ban-regex", flags.ban_regex,
                       "No tokens with a match in their text (PCRE2)")
           ->option_text("REGEX"),
       app->add_option("--ban-ids", flags.ban_ids, "No tokens with these ids, as in 1,2,3")
           ->option_text("IDS"),
       app->add_flag("--ascii", flags.ascii, "Tokens of ASCII only"),
       app->add_flag("--decodable", flags.decodable, "Tokens that are text by themselves only"),
       app->add_flag("--retokenize", flags.retokenize,
                     "Prompts whose text is tokenized into the same ids only"),
       app->add_option("--freeze", flags.freeze, "Keep the first prompt's tokens at 0,3-5")
           ->option_text("POSITIONS"),
       app->add_option("--max-cross-entropy", flags.max_cross_entropy,
                       "Keep no prompt above so many nats a token")
           ->transform(Number())
           ->option_text("X")});
}

void SetConstraints(const ConstraintFlags& flags, v1::JobSpec& spec) {
  if (flags.allow_special_tokens) spec.set_allow_special_tokens(true);
  v1::Constraints constraints;
  constraints.set_ascii_only(flags.ascii);
  constraints.set_decodable_only(flags.decodable);
  constraints.set_retokenizable(flags.retokenize);
  for (const std::string& text : flags.ban->results()) {
    constraints.add_banned_texts(Unprotect(text));
  }
  if (flags.ban_regex) constraints.set_banned_token_regex(Unprotect(*flags.ban_regex));
  if (flags.ban_ids) {
    const v1::TokenIds ids = Valid("--ban-ids", ParseIds(Unprotect(*flags.ban_ids)));
    *constraints.mutable_banned_ids() = ids.ids();
  }
  if (flags.freeze) {
    for (const int32_t position : Valid("--freeze", ParsePositions(*flags.freeze))) {
      constraints.add_frozen_positions(position);
    }
  }
  if (flags.max_cross_entropy) constraints.set_max_cross_entropy(*flags.max_cross_entropy);
  if (constraints.ByteSizeLong() > 0) *spec.mutable_constraints() = std::move(constraints);
}

}  // namespace epo::cli
