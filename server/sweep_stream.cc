#include "server/sweep_stream.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/find_sweep.h"
#include "server/frontiers.h"
#include "server/status.h"
#include "server/stream_reactor.h"

namespace epo {
namespace {

class SweepFrontierStream final : public StreamReactor<v1::ObjectiveFrontier> {
 public:
  SweepFrontierStream(const StreamSources& sources, const CallContext& context,
                      const v1::GetSweepFrontierRequest& request)
      : StreamReactor(sources.pool, sources.registry),
        sources_(sources),
        context_(context),
        id_(request.id()),
        kind_(request.kind()),
        objective_(request.first_objective()) {}

 private:
  // One job's history at a time: they are long, and others want the worker, too.
  absl::StatusOr<Batch> Fetch() override {
    if (!sweep_) {
      if (absl::Status status = Begin(); !status.ok()) return status;
    }
    if (merger_) return MergeNext();
    if (objective_ >= sweep_->objective_count()) return Batch{{}, Batch::Then::kFinish};
    const int seeds = sweep_->seed_count();
    absl::StatusOr<std::vector<v1::Job>> jobs =
        sources_.store.SweepJobs(id_, objective_ * seeds, seeds);
    if (!jobs.ok()) return OrNotFound(jobs.status());
    jobs_ = *std::move(jobs);
    merged_ = 0;
    merger_.emplace(kind_);
    return Batch{{}, Batch::Then::kFetch};
  }

  absl::Status Begin() {
    FieldViolations violations;
    if (objective_ < 0) {
      violations.push_back(
          {"first_objective", absl::StrCat("is ", objective_, "; give 0 or more")});
    }
    if (absl::Status status = CheckFrontierKind(kind_); !status.ok()) return status;
    if (!violations.empty()) return InvalidFields(violations);
    absl::StatusOr<v1::Sweep> sweep = FindSweep(sources_.store, context_, id_);
    if (!sweep.ok()) return sweep.status();
    sweep_ = *std::move(sweep);
    // What is left are numbers.
    sweep_->clear_spec();
    return absl::OkStatus();
  }

  absl::StatusOr<Batch> MergeNext() {
    if (merged_ < jobs_.size()) {
      absl::Status status = merger_->Add(sources_.store, jobs_[merged_]);
      if (!status.ok()) return OrNotFound(status);
      if (++merged_ < jobs_.size()) return Batch{{}, Batch::Then::kFetch};
    }
    auto message = std::make_shared<v1::ObjectiveFrontier>(merger_->Finish(sources_.converter()));
    message->set_objective_index(objective_);
    if (!jobs_.empty()) *message->mutable_objective() = jobs_.front().spec().objective();
    merger_.reset();
    ++objective_;
    return Batch{{std::move(message)}, Batch::Then::kFetch};
  }

  // A job that has gone was deleted with its sweep.
  absl::Status OrNotFound(const absl::Status& status) const {
    return absl::IsNotFound(status) ? SweepNotFound(id_) : status;
  }

  const StreamSources sources_;
  const CallContext context_;
  const std::string id_;
  const v1::FrontierKind kind_;
  // The rest is only for Fetch(). The objective to send next.
  int objective_;
  std::optional<v1::Sweep> sweep_;
  // Its jobs, how many of them are merged, and into what; none between two objectives.
  std::vector<v1::Job> jobs_;
  size_t merged_ = 0;
  std::optional<FrontierMerger> merger_;
};

}  // namespace

grpc::ServerWriteReactor<v1::ObjectiveFrontier>* GetSweepFrontier(
    const StreamSources& sources, const CallContext& context,
    const v1::GetSweepFrontierRequest& request) {
  auto stream = std::make_shared<SweepFrontierStream>(sources, context, request);
  auto* reactor = stream.get();
  stream->Start();
  return reactor;
}

}  // namespace epo
