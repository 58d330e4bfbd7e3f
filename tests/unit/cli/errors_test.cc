#include "client/cli/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "epo/v1/service.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;

grpc::Status BadRequest(const std::vector<std::pair<std::string, std::string>>& fields) {
  google::rpc::Status details;
  details.add_details()->PackFrom(google::rpc::ErrorInfo());
  google::rpc::BadRequest bad_request;
  for (const auto& [field, description] : fields) {
    auto* violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(description);
  }
  details.add_details()->PackFrom(bad_request);
  return {grpc::StatusCode::INVALID_ARGUMENT, "first: and more", details.SerializeAsString()};
}

TEST(ErrorLinesTest, OneLineForEachBadField) {
  EXPECT_THAT(
      ErrorLines(BadRequest({{"spec.top_k", "is 0"},
                             {"spec.initial_prompts[1].text", "is empty"},
                             {"spec.constraints.banned_ids[7]", "is -1"},
                             {"spec.new_field", "is new"}}),
                 "here", {"--initial-ids", "--initial-text"}),
      ElementsAre("--topk (spec.top_k): is 0",
                  "--initial-text (spec.initial_prompts[1].text): is empty",
                  "--ban-ids (spec.constraints.banned_ids[7]): is -1", "spec.new_field: is new"));
}

TEST(ErrorLinesTest, TheFieldsOfASweepHaveItsFlags) {
  EXPECT_THAT(ErrorLines(BadRequest({{"spec.neurons[1].last", "is 4"},
                                     {"spec.neurons", "makes 9"},
                                     {"spec.seeds", "times 9"},
                                     {"spec.seeds[2]", "is 3"},
                                     {"spec.job.top_k", "is 0"},
                                     {"spec.job.initial_prompts[0]", "is empty"}}),
                         "here", {"--initial-ids"}),
              ElementsAre("--neurons (spec.neurons[1].last): is 4",
                          "--neurons (spec.neurons): makes 9", "--seeds (spec.seeds): times 9",
                          "--seeds (spec.seeds[2]): is 3", "--topk (spec.job.top_k): is 0",
                          "--initial-ids (spec.job.initial_prompts[0]): is empty"));
}

TEST(ErrorLinesTest, ASweepsObjectivesHaveTheFlagsThatGaveThem) {
  EXPECT_THAT(ErrorLines(BadRequest({{"spec.objectives[0].terms[0].position", "is 9"},
                                     {"spec.objectives[1].terms[0].position", "is 9"},
                                     {"spec.objectives[1].neuron.layer", "is 9"},
                                     {"spec.objectives", "makes 9"},
                                     {"spec.objectives[2]", "is new"}}),
                         "here", {}, {"--objective", "--neurons"}),
              ElementsAre("--objective (spec.objectives[0].terms[0].position): is 9",
                          "--position (spec.objectives[1].terms[0].position): is 9",
                          "--neurons (spec.objectives[1].neuron.layer): is 9",
                          "--neurons (spec.objectives): makes 9", "spec.objectives[2]: is new"));
}

TEST(ErrorLinesTest, ControlCharactersOfTheServerAreShown) {
  EXPECT_THAT(ErrorLines(BadRequest({{"id", "is \x1b[2J\n"}}), "here"),
              ElementsAre("JOB (id): is \\x1b[2J\\n"));
}

TEST(ErrorLinesTest, OtherErrorsNameTheirCode) {
  EXPECT_THAT(ErrorLines({grpc::StatusCode::NOT_FOUND, "there is no job \"x\""}, "here"),
              ElementsAre("there is no job \"x\" (NOT_FOUND)"));
  EXPECT_THAT(ErrorLines({grpc::StatusCode::UNAUTHENTICATED, "who?"}, "here"),
              ElementsAre("who? (UNAUTHENTICATED)"));
}

TEST(ErrorLinesTest, ARequestThatIsTooLargeHasARemedy) {
  EXPECT_THAT(ErrorLines({grpc::StatusCode::RESOURCE_EXHAUSTED,
                          "Received message larger than max (5400133 vs. 4194304)"},
                         "here"),
              ElementsAre("the request is of 5400133 bytes, and the server takes 4194304; its flag "
                          "--max-message-bytes sets that, and for uploaded vectors "
                          "--max-vector-bytes besides"));
  EXPECT_THAT(ErrorLines({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many jobs"}, "here"),
              ElementsAre("too many jobs (RESOURCE_EXHAUSTED)"));
}

TEST(ErrorLinesTest, UnreachableIsToldFromAServersOwnRefusal) {
  const grpc::Status refused(
      grpc::StatusCode::UNAVAILABLE,
      "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to "
      "connect to remote host: Connection refused");
  EXPECT_THAT(ErrorLines(refused, "127.0.0.1:1"),
              ElementsAre("cannot reach the server at 127.0.0.1:1: Connection refused; is "
                          "epo-server running there? (--server or EPO_SERVER names another)"));
  google::rpc::Status details;
  details.add_details()->PackFrom(google::rpc::ErrorInfo());
  EXPECT_THAT(ErrorLines({grpc::StatusCode::UNAVAILABLE, "draining", details.SerializeAsString()},
                         "127.0.0.1:1"),
              ElementsAre("draining (UNAVAILABLE)"));
}

TEST(ErrorLinesTest, AConnectionThatTlsPreventsIsExplained) {
  const auto line = [](const std::string& message) {
    return ErrorLines({grpc::StatusCode::UNAVAILABLE, message}, "gpu1:1").front();
  };
  const std::string failed = "failed to connect to all addresses; last error: UNKNOWN: ipv4:1:1: ";
  EXPECT_EQ(line(failed + "Ssl handshake failed: SSL_ERROR_SSL: error:0A00010B:SSL "
                          "routines::wrong version number"),
            "cannot reach the server at gpu1:1: it does not speak TLS; leave out --tls, or set "
            "EPO_TLS=0");
  EXPECT_THAT(line(failed + "Socket closed"), testing::HasSubstr("does it want TLS (--tls)"));
  EXPECT_THAT(line("Socket closed"), testing::HasSubstr("is epo-server running there?"));
}

// Every field of a job's spec and of its objective that is no message has a flag, but for what only
// a message of its own can hold.
TEST(FlagOfFieldTest, EveryFieldOfTheSpecHasAFlag) {
  const auto* spec = v1::JobSpec::descriptor();
  for (int i = 0; i < spec->field_count(); ++i) {
    const std::string& name = spec->field(i)->name();
    if (name == "objective" || name == "constraints") continue;
    EXPECT_EQ(FlagOfField("spec." + name, {"--initial-text"}).substr(0, 2), "--") << name;
  }
  EXPECT_EQ(FlagOfField("spec.objective.neuron.layer", {}), "--layer");
  EXPECT_EQ(FlagOfField("objective.neuron.neuron", {}), "--neuron");
  EXPECT_EQ(FlagOfField("spec.objective.neuron.layer", {}, {"--neuron"}), "--neuron");
  EXPECT_EQ(FlagOfField("spec.objective.neuron.layer", {}, {""}), "--layer");
  EXPECT_EQ(FlagOfField("objective.terms[1].logit.token", {}, {"--neuron", "--logit"}), "--logit");
  EXPECT_EQ(FlagOfField("objective.terms[1].logit.token", {}, {"--neuron"}), "");
  EXPECT_EQ(FlagOfField("objective.terms[0].position.index", {}, {"--logit"}), "--position");
  EXPECT_EQ(FlagOfField("spec.objective.terms[0].logit.token", {}), "");
  EXPECT_EQ(FlagOfField("spec.contexts[1].suffix", {}), "--suffix");
  EXPECT_EQ(FlagOfField("contexts[0].bos", {}), "--bos");
  EXPECT_EQ(FlagOfField("spec.contexts[1]", {}), "--prefix");
  EXPECT_EQ(FlagOfField("spec.initial_job", {}), "--init-from");
  EXPECT_EQ(FlagOfField("prompts[0].ids[3]", {"--ids"}), "--ids");
  EXPECT_EQ(FlagOfField("prompts[7]", {"--ids"}), "");
}

TEST(ExitCodeTest, TellsHowTheJobEnded) {
  EXPECT_EQ(ExitCodeOf(v1::Job::SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(v1::Job::FAILED), 1);
  EXPECT_EQ(ExitCodeOf(v1::Job::CANCELLED), 3);
  EXPECT_EQ(ExitCodeOf(v1::Job::QUEUED), 8);
  EXPECT_EQ(ExitCodeOf(v1::Job::RUNNING), 8);
}

}  // namespace
}  // namespace epo::cli
