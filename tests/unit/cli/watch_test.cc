#include "client/cli/watch.h"

#include <absl/time/clock.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace epo::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Writer = grpc::ServerWriter<v1::WatchJobResponse>;

void WriteFound(Writer* writer) {
  v1::WatchJobResponse response;
  response.mutable_created()->set_id("j1");
  writer->Write(response);
}

void WriteStep(Writer* writer, int64_t sequence) {
  v1::WatchJobResponse response;
  response.set_sequence(sequence);
  response.mutable_step()->set_index(sequence - 1);
  writer->Write(response);
}

void WriteEnded(Writer* writer, int64_t sequence) {
  v1::WatchJobResponse response;
  response.set_sequence(sequence);
  response.mutable_ended()->set_state(v1::Job::SUCCEEDED);
  writer->Write(response);
}

const grpc::Status kBroken(grpc::StatusCode::UNAVAILABLE, "broken on purpose");

// A real server on a real port whose watches break as the test says: the k-th WatchJob call is
// played by the k-th function, and all further ones by the last.
class BreakingServer : public v1::EpoService::Service {
 public:
  using Play = std::function<grpc::Status(grpc::ServerContext*, Writer*)>;

  explicit BreakingServer(std::vector<Play> plays, int port = 0) : plays_(std::move(plays)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~BreakingServer() override { server_->Shutdown(absl::ToChronoTime(absl::Now())); }

  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        Writer* writer) override {
    size_t call;
    {
      absl::MutexLock lock(&mutex_);
      call = after_.size();
      after_.push_back(request->after_sequence());
      latest_ |= request->delivery() == v1::WatchJobRequest::LATEST;
    }
    // A watch that never gives up fails its test instead of hanging it.
    if (call > 50) return {grpc::StatusCode::OUT_OF_RANGE, "asked too often"};
    return plays_[std::min(call, plays_.size() - 1)](context, writer);
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  bool latest() {
    absl::MutexLock lock(&mutex_);
    return latest_;
  }
  std::vector<int64_t> after() {
    absl::MutexLock lock(&mutex_);
    return after_;
  }

 private:
  const std::vector<Play> plays_;
  int port_ = 0;
  absl::Mutex mutex_;
  std::vector<int64_t> after_ ABSL_GUARDED_BY(mutex_);
  bool latest_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::Server> server_;
};

class Recorder : public Watcher {
 public:
  void OnFound(const v1::Job&) override { ++found; }
  void OnUpdate(const v1::WatchJobResponse& update) override {
    sequences.push_back(update.sequence());
  }
  void OnState(const v1::Job& job) override { states.push_back(job.state()); }
  void OnLost(const grpc::Status& status, absl::Time) override {
    lost.push_back(status.error_message());
  }
  void OnIdle() override {
    if (on_idle) on_idle();
  }
  void OnSignal(int number) override { signals.push_back(number); }

  int found = 0;
  std::vector<int64_t> sequences;
  std::vector<v1::Job::State> states;
  std::vector<std::string> lost;
  std::vector<int> signals;
  std::function<void()> on_idle;
};

class WatchTest : public testing::Test {
 protected:
  WatchResult Run(const std::string& address) {
    Client client(address);
    WatchOptions options = options_;
    options.give_up_after = absl::Seconds(2);
    options.first_backoff = absl::Milliseconds(20);
    return Watch(client, "j1", options, events_, recorder_);
  }

  WatchOptions options_;
  EventQueue events_;
  Recorder recorder_;
};

TEST_F(WatchTest, TellsEachUpdateOnceAndInOrder) {
  BreakingServer server({[](auto*, Writer* writer) {
    WriteFound(writer);
    for (int i = 1; i <= 500; ++i) WriteStep(writer, i);
    WriteEnded(writer, 501);
    return grpc::Status::OK;
  }});
  const WatchResult result = Run(server.address());
  EXPECT_EQ(result.kind, WatchResult::kEnded);
  EXPECT_EQ(result.job.state(), v1::Job::SUCCEEDED);
  ASSERT_EQ(recorder_.sequences.size(), 501);
  for (int i = 0; i < 501; ++i) EXPECT_EQ(recorder_.sequences[i], i + 1);
}

TEST_F(WatchTest, ResumesAfterTheLastUpdateAndSkipsRepeats) {
  BreakingServer server({[](auto*, Writer* writer) {
                           WriteFound(writer);
                           WriteStep(writer, 1);
                           WriteStep(writer, 2);
                           return kBroken;
                         },
                         [](auto*, Writer*) { return kBroken; },
                         [](auto*, Writer* writer) {
                           WriteFound(writer);
                           WriteStep(writer, 2);
                           WriteStep(writer, 3);
                           WriteEnded(writer, 4);
                           return grpc::Status::OK;
                         }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
  EXPECT_THAT(recorder_.sequences, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(server.after(), ElementsAre(0, 2, 2));
  EXPECT_EQ(recorder_.found, 2);
  EXPECT_THAT(recorder_.lost, ElementsAre("broken on purpose", "broken on purpose"));
}

TEST_F(WatchTest, AsksAgainForUpdatesThatWereLeftOut) {
  BreakingServer server({[](auto*, Writer* writer) {
                           WriteStep(writer, 1);
                           WriteStep(writer, 4);
                           return grpc::Status::OK;
                         },
                         [](auto*, Writer* writer) {
                           for (int i = 2; i <= 4; ++i) WriteStep(writer, i);
                           WriteEnded(writer, 5);
                           return grpc::Status::OK;
                         }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
  EXPECT_THAT(recorder_.sequences, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(recorder_.lost, ElementsAre("the stream left out the updates 2 to 3"));
}

TEST_F(WatchTest, AStreamThatEndsTooEarlyIsTakenUpAgain) {
  BreakingServer server({[](auto*, Writer* writer) {
                           WriteStep(writer, 1);
                           return grpc::Status::OK;
                         },
                         [](auto*, Writer* writer) {
                           WriteEnded(writer, 2);
                           return grpc::Status::OK;
                         }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
}

TEST_F(WatchTest, GivesUpWithoutContact) {
  BreakingServer server({[](auto*, Writer* writer) {
                           WriteFound(writer);
                           return kBroken;
                         },
                         [](auto*, Writer*) { return kBroken; }});
  const absl::Time start = absl::Now();
  const WatchResult result = Run(server.address());
  EXPECT_EQ(result.kind, WatchResult::kError);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_GE(absl::Now() - start, absl::Seconds(2));
  EXPECT_LE(absl::Now() - start, absl::Seconds(8));
}

TEST_F(WatchTest, GivesUpOnAServerThatAlwaysLeavesUpdatesOut) {
  BreakingServer server({[](auto*, Writer* writer) {
    WriteFound(writer);
    WriteStep(writer, 3);
    return grpc::Status::OK;
  }});
  const WatchResult result = Run(server.address());
  EXPECT_EQ(result.kind, WatchResult::kError);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(result.status.error_message(), HasSubstr("left out the updates 1 to 2"));
}

TEST_F(WatchTest, AServerThatWasNeverReachedIsAnErrorAtOnce) {
  const absl::Time start = absl::Now();
  const WatchResult result = Run("127.0.0.1:1");
  EXPECT_EQ(result.kind, WatchResult::kError);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_LE(absl::Now() - start, absl::Seconds(2));
  EXPECT_TRUE(recorder_.lost.empty());
}

TEST_F(WatchTest, AServerThatWasReachedBeforeIsTriedAgain) {
  options_.reached = true;
  BreakingServer server({[](auto*, Writer*) { return kBroken; },
                         [](auto*, Writer* writer) {
                           WriteEnded(writer, 1);
                           return grpc::Status::OK;
                         }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
  EXPECT_THAT(recorder_.lost, ElementsAre("broken on purpose"));
}

TEST_F(WatchTest, LatestTakesUpdatesWithHoles) {
  options_.latest = true;
  BreakingServer server({[](auto*, Writer* writer) {
                           WriteStep(writer, 3);
                           WriteStep(writer, 9);
                           return kBroken;
                         },
                         [](auto*, Writer* writer) {
                           WriteStep(writer, 9);
                           WriteStep(writer, 20);
                           WriteEnded(writer, 31);
                           return grpc::Status::OK;
                         }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
  EXPECT_THAT(recorder_.sequences, ElementsAre(3, 9, 20, 31));
  EXPECT_THAT(server.after(), ElementsAre(0, 9));
  EXPECT_TRUE(server.latest());
}

TEST_F(WatchTest, HeartbeatsTellTheJobsState) {
  BreakingServer server({[](auto*, Writer* writer) {
    WriteFound(writer);
    v1::WatchJobResponse response;
    response.mutable_heartbeat()->mutable_job()->set_state(v1::Job::PAUSED);
    writer->Write(response);
    response.mutable_heartbeat()->clear_job();
    writer->Write(response);
    WriteEnded(writer, 1);
    return grpc::Status::OK;
  }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
  EXPECT_THAT(recorder_.states, ElementsAre(v1::Job::PAUSED));
  EXPECT_FALSE(server.latest());
}

TEST_F(WatchTest, AServerThatAsksForPatienceIsAskedAgain) {
  BreakingServer server({[](auto*, Writer* writer) {
                           WriteFound(writer);
                           google::rpc::Status details;
                           details.add_details()->PackFrom(google::rpc::RetryInfo());
                           return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many",
                                               details.SerializeAsString());
                         },
                         [](auto*, Writer* writer) {
                           WriteEnded(writer, 1);
                           return grpc::Status::OK;
                         }});
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kEnded);
}

TEST_F(WatchTest, OtherErrorsEndTheWatch) {
  BreakingServer server({[](auto*, Writer* writer) {
    WriteFound(writer);
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "deleted");
  }});
  const WatchResult result = Run(server.address());
  EXPECT_EQ(result.kind, WatchResult::kError);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(server.after().size(), 1);
}

// A server that is gone and comes back on its port, as in a restart.
TEST_F(WatchTest, OutlivesARestart) {
  auto first = std::make_unique<BreakingServer>(
      std::vector<BreakingServer::Play>{[](grpc::ServerContext* context, Writer* writer) {
        WriteFound(writer);
        WriteStep(writer, 1);
        while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(10));
        return kBroken;
      }});
  const std::string address = first->address();
  const int port = first->port();
  std::unique_ptr<BreakingServer> second;
  recorder_.on_idle = [&] {
    if (first == nullptr || recorder_.sequences.empty()) return;
    first.reset();
    absl::SleepFor(absl::Milliseconds(300));
    second = std::make_unique<BreakingServer>(
        std::vector<BreakingServer::Play>{[](auto*, Writer* writer) {
          WriteFound(writer);
          WriteStep(writer, 2);
          WriteEnded(writer, 3);
          return grpc::Status::OK;
        }},
        port);
  };
  EXPECT_EQ(Run(address).kind, WatchResult::kEnded);
  EXPECT_THAT(recorder_.sequences, ElementsAre(1, 2, 3));
  EXPECT_THAT(second->after(), ElementsAre(1));
}

TEST_F(WatchTest, ASignalDetachesFromAStreamThatIsSilent) {
  BreakingServer server({[](grpc::ServerContext* context, Writer* writer) {
    WriteFound(writer);
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(10));
    return grpc::Status::CANCELLED;
  }});
  recorder_.on_idle = [this] {
    events_.Push(Signal{SIGWINCH});
    events_.Push(Signal{SIGINT});
  };
  EXPECT_EQ(Run(server.address()).kind, WatchResult::kDetached);
  EXPECT_THAT(recorder_.signals, ElementsAre(SIGWINCH));
}

TEST(EventQueueTest, ABusyStreamWaitsAndAClosedOneIsRefused) {
  EventQueue events;
  std::atomic<int> pushed = 0;
  std::thread stream([&] {
    while (events.Push(StreamMessage{1, {}})) ++pushed;
  });
  absl::SleepFor(absl::Milliseconds(100));
  const int full = pushed;
  EXPECT_LE(full, 100);
  // Signals come through a full queue.
  EXPECT_TRUE(events.Push(Signal{SIGINT}));
  events.Close(1);
  stream.join();
  EXPECT_EQ(std::get<Signal>(*events.Pop(absl::InfiniteFuture())).number, SIGINT);
  EXPECT_FALSE(events.Pop(absl::Now()));
}

TEST(SignalEventsTest, SignalsBecomeEvents) {
  EventQueue events;
  {
    SignalEvents signals(events);
    kill(getpid(), SIGINT);
    EXPECT_EQ(std::get<Signal>(*events.Pop(absl::Now() + absl::Seconds(5))).number, SIGINT);
  }
  sigset_t blocked;
  pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  EXPECT_FALSE(sigismember(&blocked, SIGINT));
}

}  // namespace
}  // namespace epo::cli
