#include "server/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace epo {
namespace {

thread_local const LogScope* innermost = nullptr;

constexpr char kTime[] = "%Y-%m-%dT%H:%M:%S.%e%z";

// Control characters as C escapes, those of Unicode's second block included: a line stays one line,
// and a terminal stays as it is.
std::string Escape(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 = byte == 0xC2 && i + 1 < text.size() &&
                    static_cast<unsigned char>(text[i + 1]) - 0x80U < 0x20U;
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\r') {
      out += "\\r";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F || c1) {
      const auto code = c1 ? static_cast<unsigned char>(text[++i]) : byte;
      out += {'\\', 'x', kHex[code >> 4], kHex[code & 15]};
    } else {
      out += text[i];
    }
  }
  return out;
}

class TextFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    const LogFields fields = LogScope::Current();
    std::string text(message.payload.data(), message.payload.size());
    // The message itself names the job.
    if (!fields.client.empty()) text += " client=" + fields.client;
    if (!fields.traceparent.empty()) text += " traceparent=" + fields.traceparent;
    const std::string escaped = Escape(text);
    spdlog::details::log_msg copy = message;
    copy.payload = escaped;
    pattern_.format(copy, line);
  }

  std::unique_ptr<formatter> clone() const override { return std::make_unique<TextFormatter>(); }

 private:
  spdlog::pattern_formatter pattern_{std::string(kTime) + " %l %v"};
};

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    spdlog::memory_buf_t time;
    time_.format(message, time);
    const LogFields fields = LogScope::Current();
    const auto level = spdlog::level::to_string_view(message.level);
    nlohmann::ordered_json event;
    event["time"] = std::string(time.data(), time.size());
    event["level"] = std::string(level.data(), level.size());
    event["message"] = std::string(message.payload.data(), message.payload.size());
    if (!fields.job.empty()) event["job"] = fields.job;
    if (!fields.client.empty()) event["client"] = fields.client;
    if (!fields.traceparent.empty()) event["traceparent"] = fields.traceparent;
    const std::string text = event.dump(/*indent=*/-1, /*indent_char=*/' ', /*ensure_ascii=*/true,
                                        nlohmann::ordered_json::error_handler_t::replace) +
                             "\n";
    line.append(text.data(), text.data() + text.size());
  }

  std::unique_ptr<formatter> clone() const override { return std::make_unique<JsonFormatter>(); }

 private:
  spdlog::pattern_formatter time_{kTime, spdlog::pattern_time_type::local, /*eol=*/""};
};

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(std::string_view text) { return text.find_first_not_of('0') == text.npos; }

}  // namespace

LogScope::LogScope(LogFields fields) : fields_(std::move(fields)), around_(innermost) {
  if (around_ != nullptr) {
    const LogFields& outer = around_->fields_;
    if (fields_.job.empty()) fields_.job = outer.job;
    if (fields_.client.empty()) fields_.client = outer.client;
    if (fields_.traceparent.empty()) fields_.traceparent = outer.traceparent;
  }
  innermost = this;
}

LogScope::~LogScope() { innermost = around_; }

LogFields LogScope::Current() { return innermost == nullptr ? LogFields() : innermost->fields_; }

std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format) {
  if (format == LogFormat::kJson) return std::make_unique<JsonFormatter>();
  return std::make_unique<TextFormatter>();
}

void StartLog(const std::string& level, LogFormat format) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("epo"));
  spdlog::set_formatter(MakeLogFormatter(format));
  spdlog::set_level(spdlog::level::from_str(level));
}

std::string_view ValidTraceparent(std::string_view text) {
  // version-trace-parent-flags; a version above 00 may append further fields.
  constexpr size_t kLength = 55;
  if (text.size() < kLength || text.size() > 512) return "";
  const std::string_view version = text.substr(0, 2);
  const std::string_view trace = text.substr(3, 32);
  const std::string_view parent = text.substr(36, 16);
  if (text[2] != '-' || text[35] != '-' || text[52] != '-' || !IsLowerHex(version) ||
      !IsLowerHex(trace) || !IsLowerHex(parent) || !IsLowerHex(text.substr(53, 2)) ||
      version == "ff" || IsZero(trace) || IsZero(parent)) {
    return "";
  }
  if (version == "00") return text.size() == kLength ? text : "";
  if (text.size() > kLength && text[kLength] != '-') return "";
  return text;
}

}  // namespace epo
