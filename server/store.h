// What outlives the process: jobs, their scored iterations, their steps and the checkpoint to
// continue from; and the vectors that clients have uploaded.
#ifndef EPO_SERVER_STORE_H_
#define EPO_SERVER_STORE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "epo/v1/job.pb.h"
#include "epo/v1/sweep.pb.h"

namespace epo {

// One finished step of a job, committed as a whole.
struct StepRecord {
  // The job after the step: completed_iterations, evaluations, run_seconds.
  v1::Job job;
  v1::Step step;
  v1::Iteration iteration;
  // Run::Save() after the step.
  std::string checkpoint;
};

// A page ends before what would make it larger, but for the first entry: gRPC's clients take 4 MiB
// unless told otherwise, and the server adds a little to each job.
inline constexpr size_t kMaxPageBytes = size_t{3} << 20;

struct ListQuery {
  // 1 to 1000.
  int page_size = 50;
  // Opaque, from the page before; empty for the first.
  std::string page_token;
  // Empty: all.
  std::vector<v1::Job::State> states;
  // Only jobs of this client; absent: everybody's.
  std::optional<std::string> client;
  // Only jobs of this sweep; absent: whatever they belong to.
  std::optional<std::string> sweep;
};

struct JobPage {
  std::vector<v1::Job> jobs;
  // Empty on the last page.
  std::string next_page_token;
};

// A matrix of uploaded vectors, or one of its rows.
struct StoredVector {
  std::string name;
  int32_t rows = 0;
  int32_t width = 0;
  // Little-endian float32: [rows, width], or [width] of one row.
  std::string values;
};

struct SweepPage {
  std::vector<v1::Sweep> sweeps;
  // Empty on the last page.
  std::string next_page_token;
};

// Thread-safe; a read waits for no write. Errors: NOT_FOUND for an unknown job or sweep,
// INVALID_ARGUMENT for a bad argument (a page token, page size or limit), RESOURCE_EXHAUSTED when
// the disk is full, UNAVAILABLE for a lock or an I/O error that may pass, DATA_LOSS for a damaged
// file; the last three name the file and the operation. A call that fails has changed nothing and
// can be repeated.
class Store {
 public:
  // Opens `dir`/epo.db for this process alone, making the directory, its parents and the file where
  // they are missing, and brings an older binary's file to this one's schema. FAILED_PRECONDITION
  // names the directory or the file when it cannot be made or written, when another process holds
  // it (with its pid), or when a newer binary or another program wrote it. RESOURCE_EXHAUSTED when
  // the disk is too full to open it.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::filesystem::path& dir);

  virtual ~Store() = default;

  // Persists a new job, surviving power loss, before it returns. `request` is what a repeat under
  // the same id is compared with. If `request_id` is not empty and an undeleted job of
  // the same client was created under it: returns that job when `request` is equal (the flag is
  // then false), else ALREADY_EXISTS. ALREADY_EXISTS for a job id in use, too. OUT_OF_RANGE
  // when the client has `max_waiting` jobs that are queued or paused already.
  struct Created {
    v1::Job job;
    bool is_new;
  };
  virtual absl::StatusOr<Created> CreateJob(const v1::Job& job, const std::string& request_id,
                                            const std::string& request, int max_waiting) = 0;

  // Persists a new sweep with all its jobs, or nothing of it, surviving power loss, before it
  // returns. `jobs` are in the order of their sweep_index, and their specs are `sweep.spec().job()`
  // but for objective and seed. Otherwise as CreateJob(); request ids of sweeps and of jobs do not
  // meet. OUT_OF_RANGE when the client would have more than `max_waiting` waiting jobs.
  struct CreatedSweep {
    v1::Sweep sweep;
    bool is_new;
  };
  virtual absl::StatusOr<CreatedSweep> CreateSweep(const v1::Sweep& sweep,
                                                   const std::vector<v1::Job>& jobs,
                                                   const std::string& request_id,
                                                   const std::string& request, int max_waiting) = 0;

  // Overwrites a job's row; a terminal state survives power loss.
  virtual absl::Status UpdateJob(const v1::Job& job) = 0;
  // The same for all of `jobs` in one transaction.
  virtual absl::Status UpdateJobs(const std::vector<v1::Job>& jobs) = 0;

  // Notes whose steps the next round makes, in place of the note before; empty: no round is under
  // way, which takes no more room on the disk than an empty file. `begun` are the new rows of those
  // that begin with it; if there are any, all of it survives power loss. After an error no round
  // is under way, whatever of the transaction the disk has: without room for the empty file, that
  // cannot be promised.
  virtual absl::Status NoteRound(const std::vector<std::string>& ids,
                                 const std::vector<v1::Job>& begun) = 0;

  // Writes a little that changes nothing and survives power loss: whether a write would be taken.
  virtual absl::Status TryWrite() = 0;

  // Appends a step, its iteration, the checkpoint and the job's new row in one transaction; one
  // that ends the job survives power loss. FAILED_PRECONDITION unless the step's index is the
  // number of steps stored so far.
  virtual absl::Status AppendStep(const StepRecord& record) = 0;

  virtual absl::StatusOr<v1::Job> GetJob(const std::string& id) const = 0;
  // Newest first. A page of many bytes ends early, see kMaxPageBytes.
  virtual absl::StatusOr<JobPage> ListJobs(const ListQuery& query) const = 0;
  // With its state, and all else that its jobs tell, as they are stored now.
  virtual absl::StatusOr<v1::Sweep> GetSweep(const std::string& id) const = 0;
  // Newest first, as GetSweep() gives them. `query.states` and `query.sweep` have no meaning here.
  virtual absl::StatusOr<SweepPage> ListSweeps(const ListQuery& query) const = 0;
  // Up to `limit` jobs of the sweep with sweep_index >= `first`, in order.
  virtual absl::StatusOr<std::vector<v1::Job>> SweepJobs(const std::string& id, int first,
                                                         int limit) const = 0;
  // Jobs that are not in a terminal state, oldest first: what a server continues at its start.
  virtual absl::StatusOr<std::vector<v1::Job>> UnfinishedJobs() const = 0;
  // The ids that NoteRound() noted last, without those of deleted jobs: at a server's start, who
  // was at work when the last process died.
  virtual absl::StatusOr<std::vector<std::string>> NotedRound() const = 0;
  // How many jobs are in each state; a state without jobs may be left out.
  virtual absl::StatusOr<std::map<v1::Job::State, int64_t>> CountJobs() const = 0;
  // The job that CreateJob() would answer this request with as a repeat; none for a new request_id;
  // ALREADY_EXISTS for one that another request has taken.
  virtual absl::StatusOr<std::optional<v1::Job>> FindRepeat(const std::string& client,
                                                            const std::string& request_id,
                                                            const std::string& request) const = 0;
  // The same for CreateSweep().
  virtual absl::StatusOr<std::optional<v1::Sweep>> FindSweepRepeat(
      const std::string& client, const std::string& request_id,
      const std::string& request) const = 0;
  // Bytes that the stored jobs take: of the file, without the pages that deleted jobs have left for
  // new ones, and of a log of writes that has grown beyond what it may always have.
  virtual absl::StatusOr<int64_t> UsedBytes() const = 0;
  // Persists an uploaded vector, surviving power loss, as the client's; nothing happens when there
  // is one of its name. OUT_OF_RANGE when the client has `max_vectors` already.
  virtual absl::Status PutVector(const StoredVector& vector, const std::string& client,
                                 int max_vectors) = 0;
  // A row of an uploaded vector. NOT_FOUND without a vector of that name, OUT_OF_RANGE, saying how
  // many rows it has, for one beyond it.
  virtual absl::StatusOr<StoredVector> GetVectorRow(const std::string& name, int row) const = 0;
  // Deletes a job and all that belongs to it, surviving power loss, and gives the disk back what it
  // took.
  virtual absl::Status DeleteJob(const std::string& id) = 0;
  // The same for a sweep with all its jobs.
  virtual absl::Status DeleteSweep(const std::string& id) = 0;

  // Empty when the job has made no step.
  virtual absl::StatusOr<std::string> GetCheckpoint(const std::string& id) const = 0;

  // Up to `limit` steps with index >= `first`, in order.
  virtual absl::StatusOr<std::vector<v1::Step>> GetSteps(const std::string& id, int first,
                                                         int limit) const = 0;
  // Up to `limit` iterations with index >= `first`, in order.
  virtual absl::StatusOr<std::vector<v1::Iteration>> GetIterations(const std::string& id, int first,
                                                                   int limit) const = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_STORE_H_
