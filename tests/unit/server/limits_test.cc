#include "server/limits.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace epo {
namespace {

const Limits kSmall = {.text_bytes = 4,
                       .tokens = 3,
                       .population = 5,
                       .children = 20,
                       .iterations = 7,
                       .top_k = 9,
                       .score_prompts = 2};

std::string Found(const FieldViolations& violations) {
  std::string out;
  for (const FieldViolation& violation : violations) {
    out += violation.field + ": " + violation.description + "\n";
  }
  return out;
}

SearchOptions AtTheLimits() {
  return {.tokens = 3, .population = 5, .children_per_parent = 4, .top_k = 9, .iterations = 7};
}

TEST(LimitsTest, TakeWhatIsAtThem) {
  FieldViolations violations;
  CheckSearch(AtTheLimits(), "spec", kSmall, violations);
  v1::ScoreRequest request;
  request.add_prompts()->set_text("four");
  for (int id : {1, 2, 3}) {
    if (request.prompts_size() < 2) request.add_prompts();
    request.mutable_prompts(1)->mutable_ids()->add_ids(id);
  }
  CheckScoreTexts(request, kSmall, violations);
  CheckText("four", "text", kSmall, violations);
  CheckScore({{1, 2, 3}}, kSmall, violations);
  EXPECT_EQ(Found(violations), "");
}

TEST(LimitsTest, NameTheFieldTheLimitAndTheFlag) {
  FieldViolations violations;
  CheckSearch(
      {.tokens = 4, .population = 5, .children_per_parent = 5, .top_k = 10, .iterations = 8},
      "spec", kSmall, violations);
  EXPECT_EQ(Found(violations),
            "spec.tokens: is 4, but this server takes at most 3 (--max-tokens)\n"
            "spec.children_per_parent: times population is 25, but this server takes at most 20 "
            "(--max-children)\n"
            "spec.iterations: is 8, but this server takes at most 7 (--max-iterations)\n"
            "spec.top_k: is 10, but this server takes at most 9 (--max-top-k)\n");

  violations.clear();
  CheckSearch({.tokens = 2, .population = 6, .children_per_parent = 9, .top_k = 1, .iterations = 1},
              "spec", kSmall, violations);
  EXPECT_EQ(Found(violations),
            "spec.population: is 6, but this server takes at most 5 (--max-population)\n");
}

TEST(LimitsTest, CountTheDefaultsOfAbsentFields) {
  FieldViolations violations;
  CheckSearch({}, "spec", {.children = 255}, violations);
  EXPECT_EQ(violations.size(), 1) << Found(violations);
  EXPECT_EQ(violations.front().field, "spec.children_per_parent");
}

TEST(LimitsTest, BoundTextsAndIdsOfPrompts) {
  v1::ScoreRequest request;
  request.add_prompts()->set_text("fives");
  for (int id : {1, 2, 3, 4}) {
    if (request.prompts_size() < 2) request.add_prompts();
    request.mutable_prompts(1)->mutable_ids()->add_ids(id);
  }
  request.add_prompts()->set_text("");
  FieldViolations violations;
  CheckScoreTexts(request, kSmall, violations);
  // The first one's text was found to be too long already.
  CheckScore({{1, 2, 3, 4}, {1, 2, 3, 4}, {1}}, kSmall, violations);
  EXPECT_EQ(Found(violations),
            "prompts: has 3 entries, but this server takes at most 2 (--max-score-prompts)\n"
            "prompts[0]: is a text of 5 bytes, but this server takes at most 4 (--max-text-bytes)\n"
            "prompts[1]: has 4 tokens, but this server takes at most 3 (--max-tokens)\n");
}

TEST(LimitsTest, BoundTheTextsOfObjectivesAndContexts) {
  v1::JobSpec spec;
  v1::Term& term = *spec.mutable_objective()->add_terms();
  term.mutable_logit_difference()->mutable_token()->set_text("fives");
  term.mutable_logit_difference()->mutable_other()->set_text("sixes!");
  spec.mutable_objective()->add_terms()->mutable_continuation()->mutable_text()->set_text("fives");
  spec.mutable_objective()->add_terms()->mutable_cosine()->mutable_text()->set_text("fives");
  spec.mutable_objective()->add_terms()->mutable_logit()->mutable_token()->set_text("fives");
  spec.add_contexts()->mutable_prefix()->set_text("fives");
  spec.add_contexts()->mutable_suffix()->set_text("fives");
  FieldViolations violations;
  CheckJobTexts(spec, "spec", kSmall, violations);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : violations) fields.push_back(violation.field);
  EXPECT_EQ(fields,
            (std::vector<std::string>{"spec.objective.terms[0].logit_difference.token",
                                      "spec.objective.terms[0].logit_difference.other",
                                      "spec.objective.terms[1].continuation.text",
                                      "spec.objective.terms[2].cosine.text",
                                      "spec.objective.terms[3].logit.token",
                                      "spec.contexts[0].prefix", "spec.contexts[1].suffix"}));
}

TEST(LimitsTest, BoundAPromptWithItsContext) {
  FieldViolations violations;
  CheckContexts({.contexts = {{.prefix = {1}}, {.prefix = {1}, .suffix = {2}}}}, 2, "contexts",
                kSmall, violations);
  EXPECT_EQ(Found(violations),
            "contexts[1]: and a prompt have 4 tokens together, but this server takes at most 3 "
            "(--max-tokens)\n");
}

TEST(LimitsTest, BoundTheJobsOfASweep) {
  const Limits limits = {.sweep_jobs = 12, .waiting_jobs_per_client = 10};
  FieldViolations violations;
  CheckSweepSize(5, "spec.neurons", 2, "spec.seeds", limits, violations);
  EXPECT_EQ(Found(violations), "");
  CheckSweepSize(13, "spec.neurons", 2, "spec.seeds", limits, violations);
  EXPECT_EQ(Found(violations),
            "spec.neurons: makes 13 objectives, but this server takes at most 12 "
            "(--max-sweep-jobs)\n");
  violations.clear();
  CheckSweepSize(6, "spec.neurons", 2, "spec.seeds", limits, violations);
  EXPECT_EQ(Found(violations),
            "spec.seeds: times 6 objectives is 12 jobs, but this server takes at most 10 "
            "(--max-queued-jobs-per-client)\n");
}

TEST(LimitsTest, SayNothingAboutAFieldThatIsBadAnyway) {
  FieldViolations violations = {{"spec.population", "is odd"}};
  CheckSearch({.tokens = 2, .population = 6, .children_per_parent = 1}, "spec", {.population = 5},
              violations);
  EXPECT_EQ(Found(violations), "spec.population: is odd\n");
}

TEST(LimitsTest, AreFlags) {
  CLI::App app;
  Limits limits;
  AddLimitOptions(app, limits);
  std::vector<std::string> arguments = {"12", "--max-streams-per-client"};
  app.parse(arguments);
  EXPECT_EQ(limits.streams_per_client, 12);
  EXPECT_EQ(limits.tokens, Limits().tokens);
  for (const char* bad : {"0", "-1", "4000000000", "many"}) {
    std::vector<std::string> refused = {bad, "--max-tokens"};
    EXPECT_THROW(app.parse(refused), CLI::ParseError) << bad;
  }
}

}  // namespace
}  // namespace epo
