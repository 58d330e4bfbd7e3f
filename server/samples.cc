#include "server/samples.h"

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace epo {
namespace {

using Kind = Sample::Kind;

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Seconds since 1970 when the machine started.
double BootTime() {
  for (absl::string_view line : absl::StrSplit(ReadAll("/proc/stat"), '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    double seconds = 0;
    if (words.size() == 2 && words[0] == "btime" && absl::SimpleAtod(words[1], &seconds)) {
      return seconds;
    }
  }
  return 0;
}

}  // namespace

std::vector<Sample> ProcessSamples() {
  std::vector<Sample> samples;
  const auto add = [&](std::string name, std::string help, Kind kind, double value) {
    samples.push_back({std::move(name), std::move(help), kind, {{{}, value}}});
  };
  // The process's name, which may hold anything, stands in parentheses before the fields.
  const std::string text = ReadAll("/proc/self/stat");
  const size_t end = text.rfind(')');
  const std::vector<std::string> fields =
      absl::StrSplit(end == std::string::npos ? "" : text.substr(end + 1), ' ', absl::SkipEmpty());
  // From field 3 of proc(5) on.
  const auto field = [&](size_t number) {
    double value = 0;
    if (number - 3 < fields.size() && !absl::SimpleAtod(fields[number - 3], &value)) value = 0;
    return value;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (fields.size() > 21) {
    add("epo_process_resident_memory_bytes", "Memory of the process that is in RAM", Kind::kGauge,
        field(24) * static_cast<double>(sysconf(_SC_PAGESIZE)));
    add("epo_process_virtual_memory_bytes", "Address space of the process", Kind::kGauge,
        field(23));
    add("epo_process_cpu_seconds_total", "Processor seconds of the process, all threads",
        Kind::kCounter, (field(14) + field(15)) / ticks);
    add("epo_process_threads", "Threads of the process", Kind::kGauge, field(20));
    add("epo_process_start_time_seconds", "When the process began, since 1970", Kind::kGauge,
        BootTime() + field(22) / ticks);
  }
  std::error_code error;
  std::filesystem::directory_iterator descriptors("/proc/self/fd", error);
  if (!error) {
    // The iterator's own descriptor is one of them.
    add("epo_process_open_fds", "Open file descriptors", Kind::kGauge,
        static_cast<double>(
            std::distance(std::filesystem::begin(descriptors), std::filesystem::end(descriptors)) -
            1));
  }
  add("epo_process_max_fds", "The most file descriptors that the process may have open",
      Kind::kGauge, static_cast<double>(sysconf(_SC_OPEN_MAX)));
  return samples;
}

std::vector<Sample> StoreSamples(const Store& store, const std::filesystem::path& dir) {
  std::vector<Sample> samples;
  if (const auto counts = store.CountJobs(); counts.ok()) {
    Sample jobs{"epo_jobs", "Jobs in the store by state"};
    for (int state = v1::Job::State_MIN + 1; state <= v1::Job::State_MAX; ++state) {
      const auto found = counts->find(static_cast<v1::Job::State>(state));
      jobs.values.push_back({{{"state", absl::AsciiStrToLower(v1::Job::State_Name(state))}},
                             found == counts->end() ? 0.0 : static_cast<double>(found->second)});
    }
    samples.push_back(std::move(jobs));
  }
  Sample files{"epo_store_file_bytes", "Bytes of the store's files"};
  for (const char* name : {"epo.db", "epo.db-wal"}) {
    std::error_code error;
    const auto bytes = std::filesystem::file_size(dir / name, error);
    files.values.push_back({{{"file", name}}, error ? 0.0 : static_cast<double>(bytes)});
  }
  samples.push_back(std::move(files));
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(dir, error);
  if (!error) {
    samples.push_back({"epo_store_disk_free_bytes",
                       "Bytes left to the server on the store's file system",
                       Kind::kGauge,
                       {{{}, static_cast<double>(space.available)}}});
    samples.push_back({"epo_store_disk_size_bytes",
                       "Size of the store's file system",
                       Kind::kGauge,
                       {{{}, static_cast<double>(space.capacity)}}});
  }
  return samples;
}

std::vector<Sample> ServerSamples(const WorkerPool& pool, bool serving) {
  return {{"epo_ready",
           "1 while calls are served, 0 while the model is loading or the server is stopping",
           Kind::kGauge,
           {{{}, serving ? 1.0 : 0.0}}},
          {"epo_worker_tasks_waiting",
           "Calls and reads of streams that wait for a thread",
           Kind::kGauge,
           {{{}, static_cast<double>(pool.waiting())}}}};
}

}  // namespace epo
