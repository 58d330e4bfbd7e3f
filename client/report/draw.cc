#include "client/report/draw.h"

#include <absl/cleanup/cleanup.h>
#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <quickjs.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "client/report/assets.h"

extern char** environ;

namespace epo::report {
namespace {

// Enough for Vega and a figure's data.
constexpr size_t kMemory = size_t{1} << 30;
constexpr size_t kStack = size_t{4} << 20;

// What Vega expects of a browser and uses without one. A timer's call comes at once: Vega waits for
// nothing here.
constexpr char kSurroundings[] = R"js(
globalThis.window = globalThis.self = globalThis;
Object.hasOwn ??= (object, key) => Object.prototype.hasOwnProperty.call(object, key);
globalThis.structuredClone ??= value =>
  Array.isArray(value) ? value.map(structuredClone)
  : value instanceof Date ? new Date(value)
  : value && typeof value === 'object'
    ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, structuredClone(v)]))
  : value;
globalThis.setTimeout = call => { Promise.resolve().then(call); return 0; };
globalThis.setInterval = globalThis.clearTimeout = globalThis.clearInterval = () => 0;
globalThis.console = {log() {}, info() {}, debug() {}, warn() {}, error() {}};
)js";

// As on the page where it is light.
constexpr char kDraw[] = R"js(
globalThis.svg = null;
globalThis.failure = null;
const look = {
  width: 860, height: 520, background: '#ffffff', title, subtitle, font: 'system-ui, "Noto Sans", "DejaVu Sans", sans-serif',
  colors: {
    ink: '#1b1e23', muted: '#5a616b', rule: '#d8dbdf', accent: '#0b62a8',
    sequence: ['#a9bfd4', '#7ba3c8', '#4a86ba', '#1f69a6', '#08406f'],
    categories: ['#0072b2', '#c14e00', '#00805c', '#a5558a', '#8a6d00', '#1b1e23', '#3f8fc0', '#7a4fb5'],
  },
};
// Without a font Vega takes each letter for 0.8 of its height, which is too much for Latin ones and too
// little for full-width ones.
const guess = vega.textMetrics.width;
vega.textMetrics.width = ({fontSize}, text) =>
  guess({fontSize}, text) * (/[\u2e80-\uffff]/.test(text) ? 1.25 : 0.78);
try {
  const view = new vega.View(vega.parse(epoFigures.figure(name, JSON.parse(data), look)), {renderer: 'none', logLevel: vega.Error});
  view.toSVG().then(text => { svg = text; }, error => { failure = String(error); });
} catch (error) {
  failure = String(error);
}
)js";

std::string Text(JSContext* context, JSValueConst value) {
  size_t size = 0;
  const char* text = JS_ToCStringLen(context, &size, value);
  if (text == nullptr) return "";
  std::string copy(text, size);
  JS_FreeCString(context, text);
  return copy;
}

// One JavaScript program's world.
class Script {
 public:
  Script() : runtime_(JS_NewRuntime()) {
    JS_SetMemoryLimit(runtime_, kMemory);
    JS_SetMaxStackSize(runtime_, kStack);
    context_ = JS_NewContext(runtime_);
  }
  ~Script() {
    JS_FreeContext(context_);
    JS_FreeRuntime(runtime_);
  }
  Script(const Script&) = delete;
  Script& operator=(const Script&) = delete;

  absl::Status Run(const std::string& source, const char* name) {
    const JSValue value =
        JS_Eval(context_, source.c_str(), source.size(), name, JS_EVAL_TYPE_GLOBAL);
    const bool failed = JS_IsException(value);
    JS_FreeValue(context_, value);
    JSContext* context = nullptr;
    int jobs = failed ? -1 : 1;
    while (jobs > 0) jobs = JS_ExecutePendingJob(runtime_, &context);
    if (jobs == 0) return absl::OkStatus();
    const JSValue error = JS_GetException(failed ? context_ : context);
    absl::Status status = absl::InternalError(absl::StrCat(name, ": ", Text(context_, error)));
    JS_FreeValue(context_, error);
    return status;
  }

  void Set(const char* name, const std::string& text) {
    const JSValue global = JS_GetGlobalObject(context_);
    JS_SetPropertyStr(context_, global, name, JS_NewStringLen(context_, text.data(), text.size()));
    JS_FreeValue(context_, global);
  }

  // The global variable's text; empty when it is null.
  std::string Get(const char* name) {
    const JSValue global = JS_GetGlobalObject(context_);
    const JSValue value = JS_GetPropertyStr(context_, global, name);
    std::string text = JS_IsString(value) ? Text(context_, value) : "";
    JS_FreeValue(context_, value);
    JS_FreeValue(context_, global);
    return text;
  }

 private:
  JSRuntime* runtime_;
  JSContext* context_;
};

// Writes `input` to one end and reads what comes out of the others, until both are at their end.
void Exchange(int to, std::string_view input, int from, std::string& output, int errors,
              std::string& messages) {
  char buffer[1 << 16];
  pollfd ends[] = {{from, POLLIN, 0}, {errors, POLLIN, 0}, {to, POLLOUT, 0}};
  std::string* const kept[] = {&output, &messages};
  fcntl(to, F_SETFL, O_NONBLOCK);
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (poll(ends, 3, -1) < 0 && errno != EINTR) break;
    for (int i = 0; i < 2; ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      const ssize_t size = read(ends[i].fd, buffer, sizeof(buffer));
      if (size > 0) kept[i]->append(buffer, size);
      if (size == 0 || (size < 0 && errno != EINTR)) ends[i].fd = -1;
    }
    if (ends[2].fd < 0 || ends[2].revents == 0) continue;
    const ssize_t size = write(to, input.data(), input.size());
    if (size > 0) input.remove_prefix(size);
    const bool gone = size < 0 && errno != EINTR && errno != EAGAIN;
    if (input.empty() || gone) {
      close(to);
      ends[2].fd = -1;
    }
  }
  if (ends[2].fd >= 0) close(to);
}

}  // namespace

absl::StatusOr<std::string> DrawSvg(const std::string& name, const std::string& data,
                                    const std::string& title, const std::string& subtitle) {
  Script script;
  script.Set("name", name);
  script.Set("data", data);
  script.Set("title", title);
  script.Set("subtitle", subtitle);
  const std::pair<const char*, std::string> parts[] = {{"surroundings", kSurroundings},
                                                       {"vega.js", Asset("vega.js")},
                                                       {"text.js", Asset("text.js")},
                                                       {"figures.js", Asset("figures.js")},
                                                       {"draw", kDraw}};
  for (const auto& [part, source] : parts) {
    if (absl::Status status = script.Run(source, part); !status.ok()) return status;
  }
  std::string svg = script.Get("svg");
  if (svg.empty()) return absl::InternalError(absl::StrCat("Vega: ", script.Get("failure")));
  return svg;
}

absl::StatusOr<std::string> ToPng(const std::string& svg) {
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("no pipe: ", std::strerror(errno)));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
  std::string arguments[] = {"rsvg-convert", "--format=png", "--zoom=2"};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(), nullptr};
  pid_t child = 0;
  const int spawned = posix_spawnp(&child, argv[0], &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  for (const int end : {in[0], out[1], err[1]}) close(end);
  const auto closed = absl::MakeCleanup([&] {
    close(out[0]);
    close(err[0]);
  });
  if (spawned != 0) {
    close(in[1]);
    return absl::FailedPreconditionError(
        absl::StrCat("a PNG needs rsvg-convert, which cannot be run (", std::strerror(spawned),
                     "): install Debian's librsvg2-bin, or take --format svg"));
  }
  std::string png;
  std::string messages;
  Exchange(in[1], svg, out[0], png, err[0], messages);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || png.empty()) {
    return absl::InternalError(
        absl::StrCat("rsvg-convert: ", absl::StripAsciiWhitespace(messages)));
  }
  return png;
}

}  // namespace epo::report
