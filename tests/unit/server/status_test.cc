#include "server/status.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace epo {
namespace {

template <class Detail>
Detail Only(const google::rpc::Status& status) {
  Detail found;
  int count = 0;
  for (const auto& detail : status.details()) count += detail.UnpackTo(&found);
  EXPECT_EQ(count, 1) << Detail::descriptor()->full_name();
  return found;
}

TEST(Status, OkHasNoDetails) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_EQ(ToRpcStatus(absl::OkStatus()).code(), 0);
}

TEST(Status, AnErrorOfTheCoreGetsAnErrorInfo) {
  const auto status = ToRpcStatus(absl::NotFoundError("config.json: no such file"));
  EXPECT_EQ(status.code(), 5);
  EXPECT_EQ(status.message(), "config.json: no such file");
  const auto info = Only<google::rpc::ErrorInfo>(status);
  EXPECT_EQ(info.reason(), "NOT_FOUND");
  EXPECT_EQ(info.domain(), "epo.v1");
}

TEST(Status, DetailsTravelInTheTrailer) {
  const grpc::Status status = ToGrpcStatus(
      WithRetry(MakeError(absl::StatusCode::kUnavailable, "busy: a", "BUSY", {{"name", "a"}}),
                absl::Milliseconds(1500)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "busy: a");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 14);
  const auto info = Only<google::rpc::ErrorInfo>(details);
  EXPECT_EQ(info.reason(), "BUSY");
  EXPECT_EQ(info.metadata().at("name"), "a");
  const auto retry = Only<google::rpc::RetryInfo>(details);
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(Status, EveryBadFieldIsListed) {
  const absl::Status status = InvalidFields({{"spec.top_k", "is 0"}, {"spec.tokens", "is 1"}});
  EXPECT_EQ(status.message(), "spec.top_k: is 0 (and 1 more bad field)");
  const auto rpc = ToRpcStatus(status);
  const auto bad = Only<google::rpc::BadRequest>(rpc);
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(1).field(), "spec.tokens");
  EXPECT_EQ(bad.field_violations(1).description(), "is 1");
  EXPECT_EQ(Only<google::rpc::ErrorInfo>(rpc).metadata().at("fields"), "spec.top_k,spec.tokens");
}

TEST(Status, FitsTheTrailersWhateverTheRequest) {
  FieldViolations violations;
  for (int i = 0; i < 1000; ++i) {
    violations.push_back({absl::StrCat("prompts[", i, "]"), std::string(5000, 'x')});
  }
  const grpc::Status status = ToGrpcStatus(InvalidFields(violations));
  EXPECT_LT(status.error_message().size() + status.error_details().size() * 4 / 3, 8000u);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  const auto bad = Only<google::rpc::BadRequest>(details);
  const auto& last = bad.field_violations(bad.field_violations_size() - 1);
  EXPECT_EQ(last.description(), absl::StrCat("and ", 1000 - (bad.field_violations_size() - 1),
                                             " more bad fields from here on"));
}

TEST(Status, ALongMessageIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "\xE2\x82\xAC";  // the euro sign
  const auto status = ToRpcStatus(absl::InternalError("a" + text));
  EXPECT_LT(status.message().size(), 1100u);
  EXPECT_EQ((status.message().size() - 1 - 3) % 3, 0u);
}

}  // namespace
}  // namespace epo
