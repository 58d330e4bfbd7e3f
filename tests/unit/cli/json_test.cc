#include "client/cli/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "epo/v1/service.pb.h"

namespace epo::cli {
namespace {

using Json = nlohmann::ordered_json;

TEST(JsonTest, FloatsReadBackAsTheSameFloat32) {
  std::mt19937 random(1);
  v1::Slot slot;
  for (int i = 0; i < 200'000; ++i) {
    const uint32_t bits = random();
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    if (!std::isfinite(value)) continue;
    slot.set_penalty(value);
    const std::string text = Compact(ToJson(slot)["penalty"]);
    EXPECT_EQ(static_cast<float>(std::strtod(text.c_str(), nullptr)), value) << text;
    EXPECT_EQ(std::strtof(text.c_str(), nullptr), value) << text;
  }
  slot.set_penalty(0.1F);
  EXPECT_EQ(Compact(ToJson(slot)["penalty"]), "0.1");
}

TEST(JsonTest, AbsentAndNonFiniteScoresAreNull) {
  v1::ScoredPrompt prompt;
  prompt.add_ids(7);
  prompt.set_text("x");
  prompt.set_target(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(Compact(ToJson(prompt)),
            R"({"ids":[7],"text":"x","target":null,"cross_entropy":null,"round_trips":false})");
  prompt.set_target(-std::numeric_limits<float>::infinity());
  prompt.set_cross_entropy(2.5F);
  EXPECT_EQ(Compact(ToJson(prompt)),
            R"({"ids":[7],"text":"x","target":null,"cross_entropy":2.5,"round_trips":false})");
  v1::Iteration iteration;
  iteration.add_cross_entropy(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(Compact(ToJson(iteration)["cross_entropy"]), "[null]");
}

TEST(JsonTest, JobKeepsTheContractsNames) {
  v1::Job job;
  job.set_id("j1");
  job.set_state(v1::Job::RUNNING);
  job.set_evaluations(int64_t{1} << 53);
  job.mutable_create_time()->set_seconds(1767323045);
  job.mutable_create_time()->set_nanos(678'000'000);
  job.mutable_error()->set_code(13);
  job.mutable_error()->set_message("no memory");
  job.mutable_spec()->mutable_objective()->mutable_neuron()->set_layer(3);
  job.mutable_spec()->set_seed(std::numeric_limits<uint64_t>::max());
  const Json json = Json::parse(Compact(ToJson(job)));
  EXPECT_EQ(json["id"], "j1");
  EXPECT_EQ(json["state"], "RUNNING");
  EXPECT_EQ(json["evaluations"], int64_t{1} << 53);
  EXPECT_EQ(json["create_time"], "2026-01-02T03:04:05.678Z");
  EXPECT_TRUE(json["start_time"].is_null());
  EXPECT_EQ(json["error"], Json({{"code", 13}, {"message", "no memory"}}));
  EXPECT_EQ(json["spec"]["objective"]["neuron"], Json({{"layer", 3}, {"neuron", 0}}));
  EXPECT_EQ(json["spec"]["objective"]["terms"], Json::array());
  EXPECT_EQ(json["spec"]["seed"], std::numeric_limits<uint64_t>::max());
  EXPECT_TRUE(json["spec"]["top_k"].is_null());
  EXPECT_EQ(json["spec"]["initial_prompts"], Json::array());
}

TEST(JsonTest, IterationHasTheWholePoolAsLists) {
  v1::Iteration iteration;
  iteration.set_index(4);
  for (const int id : {1, 2}) iteration.add_ids()->add_ids(id);
  iteration.add_target(1);
  iteration.add_target(-0.5F);
  iteration.add_keep(1);
  EXPECT_EQ(Compact(ToJson(iteration)),
            R"({"index":4,"ids":[[1],[2]],"target":[1.0,-0.5],"cross_entropy":[],"keep":[1]})");
}

TEST(JsonTest, OnlyTheSetMemberOfAOneof) {
  v1::WatchJobResponse response;
  response.set_sequence(3);
  response.mutable_step()->set_index(2);
  const Json json = ToJson(response);
  EXPECT_TRUE(json.contains("step"));
  EXPECT_FALSE(json.contains("created"));
  EXPECT_FALSE(json.contains("ended"));
}

TEST(JsonTest, BytesAreBase64) {
  v1::Token token;
  token.set_value("\xff\x00");
  EXPECT_EQ(ToJson(token)["value"], "/w==");
}

TEST(JsonTest, UnknownEnumNumbersAreKept) {
  v1::Job job;
  job.set_state(static_cast<v1::Job::State>(99));
  EXPECT_EQ(ToJson(job)["state"], 99);
}

TEST(PrettyTest, ListsOfPlainValuesStayOnOneLine) {
  EXPECT_EQ(Pretty({{"a", {1, 2}}, {"b", {{"c", nullptr}}}, {"d", Json::array()}}),
            "{\n  \"a\": [1,2],\n  \"b\": {\n    \"c\": null\n  },\n  \"d\": []\n}");
}

TEST(PrettyTest, IsTheSameValue) {
  v1::Job job;
  job.mutable_spec()->add_initial_prompts()->set_text("a\n\"b\"");
  EXPECT_EQ(Json::parse(Pretty(ToJson(job))), ToJson(job));
}

}  // namespace
}  // namespace epo::cli
