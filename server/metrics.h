// What the server counts, as Prometheus reads it. docs/operations.md says what each metric means.
#ifndef EPO_SERVER_METRICS_H_
#define EPO_SERVER_METRICS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/evaluate/evaluator.h"
#include "epo/v1/job.pb.h"
#include "epo/v1/model.pb.h"

namespace epo {

// A value that is asked for when somebody reads the metrics.
struct Sample {
  // With its prefix and unit: "epo_store_bytes".
  std::string name;
  std::string help;
  // A counter never falls; its name ends in "_total".
  enum class Kind { kGauge, kCounter } kind = Kind::kGauge;
  struct Value {
    std::vector<std::pair<std::string, std::string>> labels;
    double value = 0;
  };
  // None when the value is not known; the metric is then absent.
  std::vector<Value> values;
};

// One method an event. Thread-safe; every call but Text() and AddSource() costs a few atomic
// operations, so they may stand in the hottest loops.
class Metrics {
 public:
  // With the methods of epo.v1.EpoService, so that each is reported before its first call.
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Everything, in Prometheus' text format 0.0.4. Waits for the sources.
  std::string Text() const;

  // `source` is called for each Text(), on its thread.
  void AddSource(std::function<std::vector<Sample>()> source);

  // What is served, once it is known.
  void Serving(const v1::Model& model, int round_rows);

  // A call of `path` ("/epo.v1.EpoService/GetJob"); the handle is for the rest of it. Methods that
  // are not of this service count as one, "other".
  using Method = int;
  Method RpcStarted(const char* path);
  void RpcSentMessage(Method method);
  // `code`: of grpc::StatusCode.
  void RpcEnded(Method method, int code, double seconds);

  // A heartbeat was sent on a stream that had nothing new.
  void Heartbeat();
  // `updates` were left out for a slow reader that asked for the latest only.
  void Coalesced(int64_t updates);

  // A job was persisted for the first time.
  void JobCreated();
  // The job's next step was persisted.
  void StepCommitted(const v1::Job& job, const v1::Step& step);
  // `job` was persisted in a terminal state.
  void JobEnded(const v1::Job& job);

  // A write to the store was committed, or could not be. `bytes`: of the records that it carried.
  enum class Write { kCreate, kUpdate, kStep, kDelete, kRound, kVector, kTry };
  void StoreCommitted(Write write, double seconds, size_t bytes);
  void StoreRefused(Write write);

  // What an evaluator has done between two looks at its counters.
  void Evaluated(const EvaluatorCounters& before, const EvaluatorCounters& after);
  // `code`: of absl::StatusCode.
  void EvaluatorFailed(int code);

  void RoundStarted(size_t jobs, int64_t rows);
  void RoundEnded(double seconds);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

// A round of the scheduler, from its making to its end; `metrics` may be null.
class MeteredRound {
 public:
  // `rows`: tokens of the prompts that the round scores.
  MeteredRound(Metrics* metrics, size_t jobs, int64_t rows);
  ~MeteredRound();
  MeteredRound(const MeteredRound&) = delete;
  MeteredRound& operator=(const MeteredRound&) = delete;

 private:
  Metrics* const metrics_;
  const int64_t start_ns_;
};

}  // namespace epo

#endif  // EPO_SERVER_METRICS_H_
