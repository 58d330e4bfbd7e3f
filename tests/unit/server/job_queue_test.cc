#include "server/job_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "server/clock.h"

namespace epo {
namespace {

v1::Job Job(const std::string& id, const std::string& client = "", int priority = 50) {
  v1::Job job;
  job.set_id(id);
  job.set_client(client);
  job.set_state(v1::Job::QUEUED);
  job.mutable_spec()->set_priority(priority);
  return job;
}

int Position(const JobQueue& queue, const std::string& id) {
  v1::Job job = Job(id);
  queue.Describe(job);
  return job.queue_position();
}

// Seconds from now to the job's expected start; -1 when it is not known.
double StartsIn(const JobQueue& queue, const std::string& id) {
  v1::Job job = Job(id);
  queue.Describe(job);
  if (!job.has_estimated_start_time()) return -1;
  return absl::ToDoubleSeconds(ToTime(job.estimated_start_time()) - absl::Now());
}

// Admits as many as there is room for; their ids in order.
std::vector<std::string> AdmitAll(JobQueue& queue) {
  std::vector<std::string> admitted;
  for (auto id = queue.Next(); id.has_value(); id = queue.Next()) {
    queue.Admit(*id);
    admitted.push_back(*id);
  }
  return admitted;
}

using Ids = std::vector<std::string>;

TEST(JobQueueTest, AdmitsInTheOrderOfArrival) {
  JobQueue queue(2);
  EXPECT_FALSE(queue.Next().has_value());
  for (const char* id : {"a", "b", "c", "d"}) queue.Join(Job(id), 100);
  EXPECT_EQ(Position(queue, "a"), 1);
  EXPECT_EQ(AdmitAll(queue), (Ids{"a", "b"}));
  EXPECT_EQ(Position(queue, "a"), 0);
  EXPECT_EQ(Position(queue, "c"), 1);
  EXPECT_EQ(Position(queue, "d"), 2);
  queue.Leave("c");
  EXPECT_EQ(Position(queue, "c"), 0);
  EXPECT_EQ(Position(queue, "d"), 1);
  queue.Leave("a");
  EXPECT_EQ(AdmitAll(queue), Ids{"d"});
  queue.Leave("nobody");
}

TEST(JobQueueTest, OnlyJobsThatAreQueuedHaveAPlace) {
  JobQueue queue(1);
  queue.Join(Job("a"), 100);
  queue.Join(Job("b"), 100);
  v1::Job job = Job("b");
  job.set_state(v1::Job::PAUSED);
  queue.Describe(job);
  EXPECT_EQ(job.queue_position(), 0);
}

TEST(JobQueueTest, PriorityOvertakesButNobodyWaitsForever) {
  JobQueue queue(1);
  queue.Join(Job("running"), 100);
  AdmitAll(queue);
  queue.Join(Job("low", "", 40), 100);
  queue.Join(Job("normal"), 100);
  queue.Join(Job("high", "", 90), 100);
  EXPECT_EQ(Position(queue, "high"), 1);
  EXPECT_EQ(Position(queue, "normal"), 2);
  EXPECT_EQ(Position(queue, "low"), 3);
  // Others of normal priority keep coming.
  std::string active = "running";
  int before_low = 0;
  for (int i = 0; i < 1000 && active != "low"; ++i) {
    queue.Join(Job("later" + std::to_string(i)), 100);
    queue.Leave(active);
    active = AdmitAll(queue).at(0);
    ++before_low;
  }
  // "high" and "normal", and of those that came later as many as 64 admissions let pass.
  EXPECT_EQ(active, "low");
  EXPECT_NEAR(before_low, 64 + 3, 2);
}

TEST(JobQueueTest, TheClientWithTheFewestPlacesIsNext) {
  JobQueue queue(4);
  for (int i = 0; i < 10; ++i) queue.Join(Job("a" + std::to_string(i), "alice"), 100);
  queue.Join(Job("b0", "bob"), 100);
  queue.Join(Job("b1", "bob"), 100);
  EXPECT_EQ(Position(queue, "b0"), 2);
  EXPECT_EQ(Position(queue, "b1"), 4);
  EXPECT_EQ(Position(queue, "a2"), 5);
  EXPECT_EQ(AdmitAll(queue), (Ids{"a0", "b0", "a1", "b1"}));
}

TEST(JobQueueTest, AClientThatHoldsAllPlacesGivesSomeToAnother) {
  JobQueue queue(4);
  for (int i = 0; i < 10; ++i) queue.Join(Job("a" + std::to_string(i), "alice"), 100);
  AdmitAll(queue);
  EXPECT_FALSE(queue.Unfair().has_value());
  for (int i = 0; i < 10; ++i) queue.Join(Job("b" + std::to_string(i), "bob"), 100);
  Ids gave_way;
  for (auto id = queue.Unfair(); id.has_value(); id = queue.Unfair()) {
    queue.GiveWay(*id);
    gave_way.push_back(*id);
    EXPECT_EQ(AdmitAll(queue).size(), 1U);
  }
  EXPECT_EQ(gave_way, (Ids{"a3", "a2"}));
  EXPECT_EQ(Position(queue, "b0"), 0);
  EXPECT_EQ(Position(queue, "b1"), 0);
  // They have kept their turn among their client's.
  queue.Leave("a0");
  EXPECT_EQ(AdmitAll(queue), Ids{"a2"});
}

TEST(JobQueueTest, TheNewestIsTheLastAdmitted) {
  JobQueue queue(3);
  EXPECT_FALSE(queue.Newest().has_value());
  queue.Join(Job("a", "alice"), 1);
  queue.Join(Job("b", "bob"), 1);
  AdmitAll(queue);
  EXPECT_EQ(queue.Newest(), "b");
  queue.GiveWay("b");
  EXPECT_EQ(queue.Newest(), "a");
}

TEST(JobQueueTest, ExpectsAStartByTheMeasuredPace) {
  JobQueue queue(2);
  queue.Join(Job("a"), 1000);
  queue.Join(Job("b"), 3000);
  EXPECT_NEAR(StartsIn(queue, "b"), 0, 1);  // there is room
  AdmitAll(queue);
  queue.Join(Job("c"), 1000);
  queue.Join(Job("d"), 1000);
  queue.Join(Job("e"), 1000);
  EXPECT_EQ(StartsIn(queue, "c"), -1);
  queue.SetPace(10);
  absl::SleepFor(absl::Milliseconds(1100));  // a forecast lives for a second
  // a and b share 10 rows a second: a ends after 200 s, with 2000 left of b; then c after 400 s;
  // then d, with b, after 600 s.
  EXPECT_NEAR(StartsIn(queue, "c"), 200, 3);
  EXPECT_NEAR(StartsIn(queue, "d"), 400, 3);
  EXPECT_NEAR(StartsIn(queue, "e"), 600, 3);
  queue.Progress("a", 100);
  queue.Leave("e");
  EXPECT_NEAR(StartsIn(queue, "c"), 20, 3);
}

TEST(JobQueueTest, HeldPlacesAreNotExpectedToBeTaken) {
  JobQueue queue(2);
  queue.Join(Job("a"), 1000);
  AdmitAll(queue);
  queue.SetPace(10);
  queue.Hold(true);
  queue.Join(Job("b"), 1000);
  EXPECT_NEAR(StartsIn(queue, "b"), 100, 3);
}

}  // namespace
}  // namespace epo
