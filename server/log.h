// The log: one line an event on stderr, as text or as JSON, with what the line is about as fields.
#ifndef EPO_SERVER_LOG_H_
#define EPO_SERVER_LOG_H_

#include <spdlog/formatter.h>

#include <memory>
#include <string>
#include <string_view>

namespace epo {

// What a line is about; an empty field is left out.
struct LogFields {
  std::string job;
  // Name of the API key.
  std::string client;
  // The W3C trace context of the call, or of the call that created the job.
  std::string traceparent;
};

// From its making to its end, each line that this thread logs carries `fields`; one that is empty
// is taken from the scope around. Scopes end in the reverse order of their making.
class LogScope {
 public:
  explicit LogScope(LogFields fields);
  ~LogScope();
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;

  // What lines of this thread carry now.
  static LogFields Current();

 private:
  LogFields fields_;
  const LogScope* const around_;
};

enum class LogFormat { kText, kJson };

// Makes a line of an event, whatever its text holds. Control characters are escaped. Text has its
// fields last, the job's id being in the message: "... info job j3 runs from iteration 0 client=ann
// traceparent=00-...". JSON is an object of time, level, message and the fields, in ASCII; bytes
// that are not UTF-8 become U+FFFD.
std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format);

// Makes stderr the process's log. `level`: debug, info, warn, error or off.
void StartLog(const std::string& level, LogFormat format);

// `text` if it is a W3C traceparent (https://www.w3.org/TR/trace-context), else "".
std::string_view ValidTraceparent(std::string_view text);

}  // namespace epo

#endif  // EPO_SERVER_LOG_H_
