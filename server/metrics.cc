#include "server/metrics.h"

#include <google/protobuf/util/time_util.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <sstream>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "epo/v1/service.pb.h"
#include "google/rpc/error_details.pb.h"
#include "server/clock.h"

namespace epo {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

constexpr int kCodes = 17;
constexpr char kOther[] = "other";

const Buckets& CallSeconds() {
  static const Buckets buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                  0.5,   1,      2.5,   5,    10,    30,   60};
  return buckets;
}
const Buckets& CommitSeconds() {
  static const Buckets buckets = {0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                  0.05,    0.1,    0.25,  0.5,    1,     2.5,  10};
  return buckets;
}
const Buckets& RoundSeconds() {
  static const Buckets buckets = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
  return buckets;
}
// From a moment to a week.
const Buckets& JobSeconds() {
  static const Buckets buckets = {0.1, 0.5, 1,   2.5,  5,     10,    30,    60,
                                  120, 300, 900, 3600, 14400, 43200, 86400, 604800};
  return buckets;
}
// 2^first, ..., 2^last.
Buckets Powers(int first, int last) {
  Buckets buckets;
  for (int power = first; power <= last; ++power) {
    buckets.push_back(static_cast<double>(int64_t{1} << power));
  }
  return buckets;
}

std::string Lower(absl::string_view text) { return absl::AsciiStrToLower(text); }

std::string CodeName(int code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

// Why a job failed, in a word of ErrorInfo.
std::string FailureReason(const google::rpc::Status& error) {
  if (error.code() == static_cast<int>(absl::StatusCode::kDeadlineExceeded))
    return "deadline_exceeded";
  for (const google::protobuf::Any& detail : error.details()) {
    google::rpc::ErrorInfo info;
    if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info)) return Lower(info.reason());
  }
  return Lower(CodeName(error.code()));
}

double Seconds(const google::protobuf::Timestamp& from, const google::protobuf::Timestamp& to) {
  const double microseconds =
      static_cast<double>(google::protobuf::util::TimeUtil::DurationToMicroseconds(to - from));
  // The wall clock may have been set back between the two.
  return std::max(0.0, microseconds * 1e-6);
}

prometheus::MetricFamily ToFamily(const Sample& sample) {
  const bool gauge = sample.kind == Sample::Kind::kGauge;
  prometheus::MetricFamily family;
  family.name = sample.name;
  family.help = sample.help;
  family.type = gauge ? prometheus::MetricType::Gauge : prometheus::MetricType::Counter;
  for (const Sample::Value& value : sample.values) {
    prometheus::ClientMetric metric;
    for (const auto& [name, label] : value.labels) metric.label.push_back({name, label});
    (gauge ? metric.gauge.value : metric.counter.value) = value.value;
    family.metric.push_back(std::move(metric));
  }
  return family;
}

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

// References to metrics stay valid as long as the registry, so each is looked up once.
struct Metrics::State {
  prometheus::Registry registry;

  Family<Counter>& CounterFamily(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& GaugeFamily(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& HistogramFamily(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }
  Counter& OneCounter(const char* name, const char* help) {
    return CounterFamily(name, help).Add({});
  }
  Gauge& OneGauge(const char* name, const char* help) { return GaugeFamily(name, help).Add({}); }
  Histogram& OneHistogram(const char* name, const char* help, const Buckets& buckets) {
    return HistogramFamily(name, help).Add({}, buckets);
  }

  Family<Gauge>& build_info = GaugeFamily("epo_build_info", "1, labelled with the version");
  Family<Gauge>& model_info =
      GaugeFamily("epo_model_info", "1, labelled with the resident model and where it is");

  Family<Counter>& rpcs = CounterFamily("epo_rpcs_total", "Finished calls by method and code");
  Family<Gauge>& rpcs_in_flight = GaugeFamily(
      "epo_rpcs_in_flight", "Calls under way by method; those of WatchJob are the subscribers");
  Family<Histogram>& rpc_seconds =
      HistogramFamily("epo_rpc_duration_seconds", "Seconds from a call's arrival to its status");
  Family<Counter>& rpc_messages =
      CounterFamily("epo_rpc_messages_sent_total", "Messages sent to clients by method");
  Counter& heartbeats =
      OneCounter("epo_stream_heartbeats_total", "Heartbeats sent on watches with nothing new");
  Counter& coalesced = OneCounter("epo_stream_coalesced_updates_total",
                                  "Updates left out for slow readers that want the latest only");

  Counter& jobs_created = OneCounter("epo_jobs_created_total", "Jobs accepted and persisted");
  Family<Counter>& jobs_ended =
      CounterFamily("epo_jobs_ended_total", "Jobs that ended, by final state and reason");
  Histogram& queue_wait =
      OneHistogram("epo_job_queue_wait_seconds",
                   "From a job's creation to the start of its first step", JobSeconds());
  Histogram& first_step =
      OneHistogram("epo_job_first_step_seconds",
                   "From a job's creation to its first persisted step", JobSeconds());
  Histogram& job_seconds =
      OneHistogram("epo_job_duration_seconds", "From a job's creation to its end", JobSeconds());
  Counter& steps = OneCounter("epo_steps_total", "Steps of jobs persisted");
  Histogram& frontier =
      OneHistogram("epo_frontier_points", "Points of a job's frontier after a step", Powers(0, 8));

  Family<Histogram>& commit_seconds = HistogramFamily(
      "epo_store_commit_duration_seconds", "Seconds of a committed write to the store by kind");
  Family<Counter>& commit_bytes = CounterFamily(
      "epo_store_committed_bytes_total", "Bytes of committed records, before compression, by kind");
  Family<Counter>& refusals =
      CounterFamily("epo_store_refused_writes_total", "Writes that the store refused, by kind");
  Gauge& refusing = OneGauge("epo_store_refusing_writes",
                             "1 while the last write to the store was refused, else 0");

  Counter& candidates = OneCounter("epo_candidates_scored_total", "Candidates scored");
  Counter& prepared = OneCounter("epo_prompts_prepared_total",
                                 "Prompts read whole: parents with gradients, texts to score");
  Counter& rows = OneCounter("epo_candidate_rows_computed_total",
                             "Tokens of candidates that entered the first layer");
  Counter& exhaustive = OneCounter("epo_candidate_rows_exhaustive_total",
                                   "Tokens that scoring each candidate whole would have entered");
  Counter& head_rows =
      OneCounter("epo_candidate_head_rows_computed_total", "Tokens that the output head saw");
  Counter& flops = OneCounter("epo_matmul_flops_total",
                              "Floating-point operations of products with the model's weights");
  Family<Counter>& phases = CounterFamily("epo_evaluate_seconds_total",
                                          "Seconds of the model's thread in the model, by phase");
  Counter& prepare_seconds = phases.Add({{"phase", "prepare"}});
  Counter& substitute_seconds = phases.Add({{"phase", "substitutes"}});
  Counter& layer_seconds = phases.Add({{"phase", "layers"}});
  Counter& head_seconds = phases.Add({{"phase", "head"}});
  Family<Counter>& evaluator_errors =
      CounterFamily("epo_evaluate_errors_total", "Calls of the model that failed, by code");

  Histogram& round_seconds =
      OneHistogram("epo_round_duration_seconds", "Seconds of a round", RoundSeconds());
  Histogram& round_rows =
      OneHistogram("epo_round_rows", "Tokens of the prompts that a round scores", Powers(6, 20));
  Histogram& round_jobs = OneHistogram("epo_round_jobs", "Jobs that share a round", Powers(0, 7));
  Gauge& rounds_in_flight =
      OneGauge("epo_rounds_in_flight", "1 while the model's thread runs a round, else 0");
  Gauge& round_rows_limit =
      OneGauge("epo_round_rows_limit", "Tokens that a round takes at most when jobs share it");

  struct PerMethod {
    std::string name;
    bool streams = false;
    Gauge* in_flight = nullptr;
    Counter* messages = nullptr;
    // Null for streams: their duration says nothing about the server.
    Histogram* seconds = nullptr;
    // By code; made at the first call that ends with it.
    std::array<std::atomic<Counter*>, kCodes> ended{};
  };
  // The last one is kOther.
  std::vector<std::unique_ptr<PerMethod>> methods;
  absl::flat_hash_map<std::string, Method> method_by_path;

  struct PerWrite {
    Histogram* seconds;
    Counter* bytes;
    Counter* refused;
  };
  std::vector<PerWrite> writes;

  mutable absl::Mutex mutex;
  std::vector<std::function<std::vector<Sample>()>> sources ABSL_GUARDED_BY(mutex);

  void AddMethod(const std::string& name, bool streams) {
    auto method = std::make_unique<PerMethod>();
    method->name = name;
    method->streams = streams;
    method->in_flight = &rpcs_in_flight.Add({{"method", name}});
    method->messages = &rpc_messages.Add({{"method", name}});
    if (!streams) method->seconds = &rpc_seconds.Add({{"method", name}}, CallSeconds());
    methods.push_back(std::move(method));
    Ended(*methods.back(), 0).Increment(0);
  }

  Counter& Ended(PerMethod& method, int code) {
    if (code < 0 || code >= kCodes) code = static_cast<int>(absl::StatusCode::kUnknown);
    std::atomic<Counter*>& slot = method.ended[code];
    Counter* counter = slot.load(std::memory_order_acquire);
    if (counter == nullptr) {
      counter = &rpcs.Add({{"method", method.name}, {"code", CodeName(code)}});
      slot.store(counter, std::memory_order_release);
    }
    return *counter;
  }
};

Metrics::Metrics() : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.build_info.Add({{"version", EPO_VERSION}}).Set(1);
  const auto* service = v1::GetServerInfoRequest::descriptor()->file()->service(0);
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* method = service->method(i);
    s.method_by_path[absl::StrCat("/", service->full_name(), "/", method->name())] = i;
    s.AddMethod(method->name(), method->server_streaming());
  }
  s.AddMethod(kOther, /*streams=*/true);
  for (const char* kind : {"create", "update", "step", "delete", "round", "vector", "try"}) {
    const prometheus::Labels labels = {{"kind", kind}};
    s.writes.push_back({&s.commit_seconds.Add(labels, CommitSeconds()), &s.commit_bytes.Add(labels),
                        &s.refusals.Add(labels)});
  }
  s.jobs_ended.Add({{"state", "succeeded"}, {"reason", "done"}});
  s.jobs_ended.Add({{"state", "cancelled"}, {"reason", "cancelled"}});
  // A counter that is there from the start has an increase when it becomes 1.
  for (const char* reason :
       {"deadline_exceeded", "internal", "max_attempts_reached", "resource_exhausted"}) {
    s.jobs_ended.Add({{"state", "failed"}, {"reason", reason}});
  }
  for (const char* code : {"INTERNAL", "RESOURCE_EXHAUSTED"}) {
    s.evaluator_errors.Add({{"code", code}});
  }
}

Metrics::~Metrics() = default;

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = state_->registry.Collect();
  std::vector<std::function<std::vector<Sample>()>> sources;
  {
    absl::MutexLock lock(&state_->mutex);
    sources = state_->sources;
  }
  for (const auto& source : sources) {
    for (const Sample& sample : source()) {
      if (!sample.values.empty()) families.push_back(ToFamily(sample));
    }
  }
  std::erase_if(families, [](const auto& family) { return family.metric.empty(); });
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

void Metrics::AddSource(std::function<std::vector<Sample>()> source) {
  absl::MutexLock lock(&state_->mutex);
  state_->sources.push_back(std::move(source));
}

void Metrics::Serving(const v1::Model& model, int round_rows) {
  state_->model_info
      .Add({{"name", model.name()},
            {"fingerprint", model.fingerprint()},
            {"architecture", model.architecture()},
            {"device", model.device()},
            {"dtype", model.dtype()}})
      .Set(1);
  state_->round_rows_limit.Set(round_rows);
}

Metrics::Method Metrics::RpcStarted(const char* path) {
  const auto found = state_->method_by_path.find(path);
  const Method method = found == state_->method_by_path.end()
                            ? static_cast<Method>(state_->methods.size()) - 1
                            : found->second;
  state_->methods[method]->in_flight->Increment();
  return method;
}

void Metrics::RpcSentMessage(Method method) { state_->methods[method]->messages->Increment(); }

void Metrics::RpcEnded(Method method, int code, double seconds) {
  State::PerMethod& per_method = *state_->methods[method];
  per_method.in_flight->Decrement();
  if (per_method.seconds != nullptr) per_method.seconds->Observe(seconds);
  state_->Ended(per_method, code).Increment();
}

void Metrics::Heartbeat() { state_->heartbeats.Increment(); }
void Metrics::Coalesced(int64_t updates) {
  state_->coalesced.Increment(static_cast<double>(updates));
}

void Metrics::JobCreated() { state_->jobs_created.Increment(); }

void Metrics::StepCommitted(const v1::Job& job, const v1::Step& step) {
  state_->steps.Increment();
  state_->frontier.Observe(step.frontier().points_size());
  if (step.index() != 0) return;
  state_->queue_wait.Observe(Seconds(job.create_time(), job.start_time()));
  state_->first_step.Observe(Seconds(job.create_time(), NowTimestamp()));
}

void Metrics::JobEnded(const v1::Job& job) {
  const std::string state = Lower(v1::Job::State_Name(job.state()));
  std::string reason = state;
  if (job.state() == v1::Job::SUCCEEDED) reason = "done";
  if (job.state() == v1::Job::FAILED) reason = FailureReason(job.error());
  state_->jobs_ended.Add({{"state", state}, {"reason", reason}}).Increment();
  state_->job_seconds.Observe(Seconds(job.create_time(), job.end_time()));
}

void Metrics::StoreCommitted(Write write, double seconds, size_t bytes) {
  const State::PerWrite& per_write = state_->writes[static_cast<size_t>(write)];
  per_write.seconds->Observe(seconds);
  per_write.bytes->Increment(static_cast<double>(bytes));
  state_->refusing.Set(0);
}

void Metrics::StoreRefused(Write write) {
  state_->writes[static_cast<size_t>(write)].refused->Increment();
  state_->refusing.Set(1);
}

void Metrics::Evaluated(const EvaluatorCounters& before, const EvaluatorCounters& after) {
  const auto add = [](Counter& counter, auto from, auto to) {
    if (to > from) counter.Increment(static_cast<double>(to - from));
  };
  State& s = *state_;
  add(s.candidates, before.candidates, after.candidates);
  add(s.prepared, before.prepared_prompts, after.prepared_prompts);
  add(s.rows, before.rows, after.rows);
  add(s.exhaustive, before.exhaustive_rows, after.exhaustive_rows);
  add(s.head_rows, before.head_rows, after.head_rows);
  add(s.flops, before.matmul_flops, after.matmul_flops);
  add(s.prepare_seconds, before.prepare_seconds, after.prepare_seconds);
  add(s.substitute_seconds, before.substitute_seconds, after.substitute_seconds);
  add(s.layer_seconds, before.layer_seconds, after.layer_seconds);
  add(s.head_seconds, before.head_seconds, after.head_seconds);
}

void Metrics::EvaluatorFailed(int code) {
  state_->evaluator_errors.Add({{"code", CodeName(code)}}).Increment();
}

void Metrics::RoundStarted(size_t jobs, int64_t rows) {
  state_->round_jobs.Observe(static_cast<double>(jobs));
  state_->round_rows.Observe(static_cast<double>(rows));
  state_->rounds_in_flight.Increment();
}

void Metrics::RoundEnded(double seconds) {
  state_->round_seconds.Observe(seconds);
  state_->rounds_in_flight.Decrement();
}

MeteredRound::MeteredRound(Metrics* metrics, size_t jobs, int64_t rows)
    : metrics_(metrics), start_ns_(NowNs()) {
  if (metrics_ != nullptr) metrics_->RoundStarted(jobs, rows);
}

MeteredRound::~MeteredRound() {
  if (metrics_ != nullptr) {
    metrics_->RoundEnded(static_cast<double>(NowNs() - start_ns_) * 1e-9);
  }
}

}  // namespace epo
