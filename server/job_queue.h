// Who waits for a place among the active jobs, whose turn is next, and when it will be.
#ifndef EPO_SERVER_JOB_QUEUE_H_
#define EPO_SERVER_JOB_QUEUE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "epo/v1/job.pb.h"

namespace epo {

// Thread-safe. The next place goes to the client that has the fewest (ties: whose first job came
// first). Of a client's jobs, one of higher priority overtakes those that wait, but none waits
// forever: a job of priority 50 lets at most 64 later ones pass, and ten more priority is half as
// many.
class JobQueue {
 public:
  // `places`: jobs that may be active at the same time.
  explicit JobQueue(int places) : places_(places) {}

  // The job waits. `rows`: what is left of its work. `had_place`: before all that had none.
  void Join(const v1::Job& job, double rows, bool had_place = false);
  // The job neither waits nor has a place any more. Nothing happens to a job that did neither.
  void Leave(const std::string& id);
  // The active job waits again, at its old turn.
  void GiveWay(const std::string& id);

  // The job whose turn it is; none when no place is free or nobody waits.
  std::optional<std::string> Next() const;
  // The job, which waits, gets a place.
  void Admit(const std::string& id);
  // The active job that should give its place to another client's: the last admitted of a client
  // that has at least two more than one that waits; none when the places are fairly held or one is
  // free.
  std::optional<std::string> Unfair() const;
  // The last admitted of the active jobs.
  std::optional<std::string> Newest() const;

  // Whether the free places are kept free.
  void Hold(bool held);
  // What is left of an active job's work.
  void Progress(const std::string& id, double rows);
  // The device does so many rows a second, for all jobs together.
  void SetPace(double rows_per_second);

  // Fills in queue_position and estimated_start_time of a job that waits; leaves others alone.
  void Describe(v1::Job& job) const;

 private:
  // Where a job stands among its client's: at first by turn, then by arrival.
  using Turn = std::pair<double, int64_t>;
  struct Entry {
    std::string client;
    Turn turn;
    double weight = 1;
    double rows = 0;
    // The number of its admission; 0 while it waits.
    int64_t admitted = 0;
  };
  struct Client {
    std::map<Turn, std::string> waiting;
    // By number of admission.
    std::map<int64_t, std::string> active;
  };
  struct Forecast {
    int position = 0;
    // InfiniteFuture while nothing is known.
    absl::Time start;
  };

  bool full() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return active_ >= places_; }
  void Remove(const std::string& id, const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeForecast(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int places_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);
  int active_ ABSL_GUARDED_BY(mutex_) = 0;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t arrivals_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t admissions_ ABSL_GUARDED_BY(mutex_) = 0;
  double rows_per_second_ ABSL_GUARDED_BY(mutex_) = 0;

  // Made when somebody asks, and good until the queue changes or it gets old.
  mutable absl::flat_hash_map<std::string, Forecast> forecast_ ABSL_GUARDED_BY(mutex_);
  mutable absl::Time forecast_time_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace epo

#endif  // EPO_SERVER_JOB_QUEUE_H_
