#include "core/search/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/unit/core/targets.h"
#include "tests/unit/core/tiny_checkpoint.h"

namespace epo {
namespace {

SearchOptions SmallOptions(uint64_t seed) {
  SearchOptions options;
  options.tokens = 6;
  options.population = 3;
  options.children_per_parent = 5;
  options.top_k = 40;
  options.iterations = 7;
  options.restart_period = 3;
  options.restart_penalty_low = 0.5;
  options.restart_penalty_high = 4.0;
  options.seed = seed;
  return options;
}

// Passes everything on to a real evaluator, until it is told to fail.
class FailingEvaluator final : public Evaluator {
 public:
  enum Call { kNone, kFirstPrepare, kSubstitutes, kScore, kLastPrepare };

  explicit FailingEvaluator(Evaluator& real) : real_(real) {}

  void FailAt(Call call) {
    fail_at_ = call;
    prepares_ = 0;
  }

  absl::StatusOr<std::vector<std::shared_ptr<const Prepared>>> Prepare(
      std::span<const PrepareRequest> requests) override {
    if (fail_at_ == (++prepares_ == 1 ? kFirstPrepare : kLastPrepare)) return Failure();
    return real_.Prepare(requests);
  }
  absl::StatusOr<std::vector<TokenId>> Substitutes(
      std::span<const SubstituteQuery> queries) override {
    if (fail_at_ == kSubstitutes) return Failure();
    return real_.Substitutes(queries);
  }
  absl::StatusOr<std::vector<Score>> ScoreCandidates(
      std::span<const Candidate> candidates) override {
    if (fail_at_ == kScore) return Failure();
    return real_.ScoreCandidates(candidates);
  }
  void LimitRows(int max_rows) override { real_.LimitRows(max_rows); }
  const EvaluatorCounters& counters() const override { return real_.counters(); }

 private:
  static absl::Status Failure() { return absl::ResourceExhaustedError("out of memory"); }

  Evaluator& real_;
  Call fail_at_ = kNone;
  int prepares_ = 0;
};

// Test::Run hides the class of that name, hence epo::Run.
class RunTest : public ::testing::Test {
 protected:
  RunTest() {
    model_ = *Model::Load(ParityModel("phi-tiny"), {"cpu", "float64"});
    evaluator_ = Evaluator::Create(*model_, {});
  }

  std::unique_ptr<epo::Run> Make(uint64_t seed, const Objective& objective) const {
    auto run = epo::Run::Create(*model_, objective, SmallOptions(seed));
    EXPECT_TRUE(run.ok()) << run.status();
    return *std::move(run);
  }

  static StepReport Advance(Evaluator& evaluator, epo::Run& run) {
    epo::Run* const runs[] = {&run};
    auto reports = AdvanceRound(evaluator, runs);
    EXPECT_TRUE(reports.ok()) << reports.status();
    return reports->front();
  }

  std::vector<StepReport> RunToEnd(epo::Run& run) {
    std::vector<StepReport> reports;
    while (!run.done()) reports.push_back(Advance(*evaluator_, run));
    return reports;
  }

  std::unique_ptr<Model> model_;
  std::unique_ptr<Evaluator> evaluator_;
};

void ExpectEqual(const StepReport& a, const StepReport& b) {
  EXPECT_EQ(a.iteration.index, b.iteration.index);
  EXPECT_EQ(a.iteration.ids, b.iteration.ids);
  EXPECT_EQ(a.iteration.keep, b.iteration.keep);
  ASSERT_EQ(a.iteration.scores.size(), b.iteration.scores.size());
  for (size_t i = 0; i < a.iteration.scores.size(); ++i) {
    // Rows of other jobs in the same product may turn a last bit.
    EXPECT_FLOAT_EQ(a.iteration.scores[i].target, b.iteration.scores[i].target);
    EXPECT_FLOAT_EQ(a.iteration.scores[i].cross_entropy, b.iteration.scores[i].cross_entropy);
  }
  ASSERT_EQ(a.slots.size(), b.slots.size());
  for (size_t i = 0; i < a.slots.size(); ++i) {
    EXPECT_EQ(a.slots[i].penalty, b.slots[i].penalty);
    EXPECT_EQ(a.slots[i].ids, b.slots[i].ids);
    EXPECT_EQ(a.slots[i].next_token, b.slots[i].next_token);
  }
  ASSERT_EQ(a.frontier.size(), b.frontier.size());
  for (size_t i = 0; i < a.frontier.size(); ++i) EXPECT_EQ(a.frontier[i].ids, b.frontier[i].ids);
}

TEST_F(RunTest, ReportsSurvivorsOfEachSlot) {
  const auto run = Make(1, NeuronObjective(2, 5));
  EXPECT_EQ(run->evaluations_per_step(), 3 * 6);
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(run->completed_iterations(), i);
    const StepReport report = Advance(*evaluator_, *run);
    EXPECT_EQ(report.iteration.index, i);
    ASSERT_EQ(report.slots.size(), 3U);
    for (int slot = 0; slot < 3; ++slot) {
      const int kept = report.iteration.keep[slot];
      EXPECT_EQ(report.slots[slot].ids, report.iteration.ids[kept]);
      EXPECT_EQ(report.slots[slot].score, report.iteration.scores[kept]);
      const PrepareRequest request{report.slots[slot].ids, NeuronTarget(*model_, 2, 5), false};
      EXPECT_EQ(report.slots[slot].next_token,
                (*evaluator_->Prepare({&request, 1}))[0]->next_token());
    }
    EXPECT_LT(report.slots[0].penalty, report.slots[2].penalty);
    EXPECT_FALSE(report.frontier.empty());
  }
  EXPECT_TRUE(run->done());
}

TEST_F(RunTest, SharesARoundWithoutInfluence) {
  std::vector<Objective> objectives = ManyObjectives(*model_);
  objectives.push_back(NeuronObjective(0, 200));
  objectives[2].terms[1].scale.reset();
  std::vector<std::vector<StepReport>> alone;
  std::vector<std::unique_ptr<epo::Run>> owned;
  std::vector<epo::Run*> together;
  for (size_t i = 0; i < objectives.size(); ++i) {
    alone.push_back(RunToEnd(*Make(i, objectives[i])));
    owned.push_back(Make(i, objectives[i]));
    together.push_back(owned.back().get());
  }
  for (int step = 0; step < 7; ++step) {
    const auto reports = AdvanceRound(*evaluator_, together);
    ASSERT_TRUE(reports.ok()) << reports.status();
    ASSERT_EQ(reports->size(), objectives.size());
    for (size_t i = 0; i < objectives.size(); ++i) ExpectEqual((*reports)[i], alone[i][step]);
  }
}

// The standard deviation over random prompts, which a restored run finds again.
TEST_F(RunTest, MeasuresTheScalesThatAreNotGiven) {
  Objective objective = ManyObjectives(*model_)[2];
  objective.terms[1].scale.reset();
  const auto run = Make(3, objective);
  const std::vector<double> scales = Advance(*evaluator_, *run).term_scales;
  ASSERT_EQ(scales.size(), 3U);
  EXPECT_EQ(scales[0], 1);
  EXPECT_EQ(scales[2], 1);
  double sum = 0, squares = 0;
  std::mt19937 random(99);
  constexpr int kPrompts = 1000;
  for (int i = 0; i < kPrompts; ++i) {
    Prompt prompt(SmallOptions(3).tokens);
    for (TokenId& id : prompt) id = static_cast<TokenId>(random() % 512);
    const PrepareRequest request{prompt, MakeTarget(*model_, ManyObjectives(*model_)[2]), false};
    const double value = (*evaluator_->Prepare({&request, 1}))[0]->term_values()[1];
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(scales[1], std::sqrt(squares / kPrompts - sum * sum / kPrompts / kPrompts),
              0.15 * scales[1]);

  const auto again = epo::Run::Restore(*model_, objective, SmallOptions(3), run->Save());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Advance(*evaluator_, **again).term_scales, scales);
}

TEST_F(RunTest, ATermThatNeverVariesHasNoScale) {
  Objective objective = NeuronObjective(0, 1);
  // The first token sees itself alone.
  objective.terms[0] = {.kind = AttentionTerm{.layer = 1, .head = 0, .key = 0},
                        .position = {.first = 0},
                        .scale = std::nullopt};
  const auto run = Make(3, objective);
  epo::Run* const runs[] = {run.get()};
  const absl::Status status = AdvanceRound(*evaluator_, runs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("terms[0].measured_scale"));
}

TEST_F(RunTest, ContinuesFromSave) {
  const auto whole = RunToEnd(*Make(4, NeuronObjective(1, 7)));
  for (const int cut : {0, 1, 3, 6}) {
    const auto before = Make(4, NeuronObjective(1, 7));
    for (int i = 0; i < cut; ++i) Advance(*evaluator_, *before);
    const auto after =
        epo::Run::Restore(*model_, NeuronObjective(1, 7), SmallOptions(4), before->Save());
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ((*after)->completed_iterations(), cut);
    const auto rest = RunToEnd(**after);
    ASSERT_EQ(rest.size(), whole.size() - cut);
    for (size_t i = 0; i < rest.size(); ++i) ExpectEqual(rest[i], whole[cut + i]);
  }
  EXPECT_EQ(epo::Run::Restore(*model_, NeuronObjective(1, 7), SmallOptions(4), "nonsense")
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(RunTest, AFailedRoundAdvancesNothing) {
  const auto whole = RunToEnd(*Make(9, NeuronObjective(2, 3)));
  FailingEvaluator evaluator(*evaluator_);
  const auto run = Make(9, NeuronObjective(2, 3));
  for (const StepReport& expected : whole) {
    for (const auto call : {FailingEvaluator::kFirstPrepare, FailingEvaluator::kSubstitutes,
                            FailingEvaluator::kScore, FailingEvaluator::kLastPrepare}) {
      const std::string before = run->Save();
      evaluator.FailAt(call);
      epo::Run* const runs[] = {run.get()};
      EXPECT_EQ(AdvanceRound(evaluator, runs).status().code(),
                absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(run->Save(), before);
    }
    evaluator.FailAt(FailingEvaluator::kNone);
    ExpectEqual(Advance(evaluator, *run), expected);
  }
}

}  // namespace
}  // namespace epo
