#include "server/job_queue.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <tuple>
#include <vector>

#include "absl/time/clock.h"
#include "server/clock.h"
#include "server/fair_share.h"
#include "server/job_state.h"

namespace epo {
namespace {

// Later jobs that one of priority 50 lets pass.
constexpr double kPatience = 64;
constexpr absl::Duration kForecastAge = absl::Seconds(1);

}  // namespace

void JobQueue::Join(const v1::Job& job, double rows, bool had_place) {
  absl::MutexLock lock(&mutex_);
  const double weight = PriorityWeight(PriorityOf(job.spec()));
  const double after = had_place ? 0 : static_cast<double>(admissions_) + kPatience / weight;
  const Turn turn{after, ++arrivals_};
  entries_[job.id()] = {job.client(), turn, weight, rows, /*admitted=*/0};
  clients_[job.client()].waiting.emplace(turn, job.id());
  forecast_time_ = absl::InfinitePast();
}

void JobQueue::Remove(const std::string& id, const Entry& entry) {
  const auto client = clients_.find(entry.client);
  if (entry.admitted == 0) {
    client->second.waiting.erase(entry.turn);
  } else {
    client->second.active.erase(entry.admitted);
    --active_;
  }
  if (client->second.waiting.empty() && client->second.active.empty()) clients_.erase(client);
  entries_.erase(id);
  forecast_time_ = absl::InfinitePast();
}

void JobQueue::Leave(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  if (it != entries_.end()) Remove(id, Entry(it->second));
}

void JobQueue::GiveWay(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_.at(id);
  Client& client = clients_[entry.client];
  client.active.erase(entry.admitted);
  --active_;
  entry.admitted = 0;
  client.waiting.emplace(entry.turn, id);
  forecast_time_ = absl::InfinitePast();
}

std::optional<std::string> JobQueue::Next() const {
  absl::MutexLock lock(&mutex_);
  if (full()) return std::nullopt;
  const Client* next = nullptr;
  for (const auto& [name, client] : clients_) {
    if (client.waiting.empty()) continue;
    if (next == nullptr || std::pair(client.active.size(), client.waiting.begin()->first) <
                               std::pair(next->active.size(), next->waiting.begin()->first)) {
      next = &client;
    }
  }
  if (next == nullptr) return std::nullopt;
  return next->waiting.begin()->second;
}

void JobQueue::Admit(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_.at(id);
  Client& client = clients_[entry.client];
  client.waiting.erase(entry.turn);
  entry.admitted = ++admissions_;
  client.active.emplace(entry.admitted, id);
  ++active_;
  forecast_time_ = absl::InfinitePast();
}

std::optional<std::string> JobQueue::Unfair() const {
  absl::MutexLock lock(&mutex_);
  if (!full()) return std::nullopt;
  const Client* rich = nullptr;
  const Client* poor = nullptr;
  for (const auto& [name, client] : clients_) {
    if (rich == nullptr || client.active.size() > rich->active.size()) rich = &client;
    if (!client.waiting.empty() && (poor == nullptr || client.active.size() < poor->active.size()))
      poor = &client;
  }
  if (poor == nullptr || rich->active.size() < poor->active.size() + 2) return std::nullopt;
  return rich->active.rbegin()->second;
}

std::optional<std::string> JobQueue::Newest() const {
  absl::MutexLock lock(&mutex_);
  std::optional<std::pair<int64_t, std::string>> newest;
  for (const auto& [name, client] : clients_) {
    if (client.active.empty()) continue;
    const auto& last = *client.active.rbegin();
    if (!newest.has_value() || last.first > newest->first) newest = last;
  }
  if (!newest.has_value()) return std::nullopt;
  return newest->second;
}

void JobQueue::Hold(bool held) {
  absl::MutexLock lock(&mutex_);
  if (held_ != held) forecast_time_ = absl::InfinitePast();
  held_ = held;
}

void JobQueue::Progress(const std::string& id, double rows) {
  absl::MutexLock lock(&mutex_);
  if (const auto it = entries_.find(id); it != entries_.end()) it->second.rows = rows;
}

void JobQueue::SetPace(double rows_per_second) {
  absl::MutexLock lock(&mutex_);
  rows_per_second_ = rows_per_second;
}

void JobQueue::MakeForecast(absl::Time now) const {
  forecast_.clear();
  forecast_time_ = now;

  // Jobs that share the device by weight: on a clock that runs at rows per second over the weights
  // of the jobs that share, each needs its own rows over its own weight, whoever comes and goes.
  double clock = 0;
  double weights = 0;
  absl::Duration passed;
  std::priority_queue<std::pair<double, const Entry*>, std::vector<std::pair<double, const Entry*>>,
                      std::greater<>>
      ends;
  const auto start = [&](const Entry& entry) {
    weights += entry.weight;
    ends.emplace(clock + entry.rows / entry.weight, &entry);
  };
  // Of each client with waiting jobs: its active jobs, its next turn, and who has it.
  struct Line {
    size_t active;
    std::map<Turn, std::string>::const_iterator next;
    std::map<Turn, std::string>::const_iterator end;
    bool operator>(const Line& other) const {
      return std::pair(active, next->first) > std::pair(other.active, other.next->first);
    }
  };
  std::priority_queue<Line, std::vector<Line>, std::greater<>> lines;
  for (const auto& [name, client] : clients_) {
    for (const auto& [number, id] : client.active) start(entries_.at(id));
    if (client.waiting.empty()) continue;
    lines.push({client.active.size(), client.waiting.begin(), client.waiting.end()});
  }
  int free = held_ ? 0 : places_ - active_;
  int position = 0;
  while (!lines.empty()) {
    Line line = lines.top();
    lines.pop();
    bool known = true;
    if (free > 0) {
      --free;
    } else {
      known = rows_per_second_ > 0 && !ends.empty();
      if (known) {
        const auto [end, entry] = ends.top();
        ends.pop();
        passed += absl::Seconds((end - clock) * weights / rows_per_second_);
        clock = end;
        weights -= entry->weight;
      }
    }
    const std::string& id = line.next->second;
    forecast_[id] = {++position, known ? now + passed : absl::InfiniteFuture()};
    start(entries_.at(id));
    ++line.active;
    if (++line.next != line.end) lines.push(line);
  }
}

void JobQueue::Describe(v1::Job& job) const {
  if (job.state() != v1::Job::QUEUED) return;
  absl::MutexLock lock(&mutex_);
  const auto entry = entries_.find(job.id());
  if (entry == entries_.end() || entry->second.admitted != 0) return;
  const absl::Time now = absl::Now();
  if (now - forecast_time_ > kForecastAge) MakeForecast(now);
  const auto it = forecast_.find(job.id());
  job.set_queue_position(it->second.position);
  if (it->second.start != absl::InfiniteFuture()) {
    *job.mutable_estimated_start_time() = ToTimestamp(std::max(it->second.start, now));
  }
}

}  // namespace epo
