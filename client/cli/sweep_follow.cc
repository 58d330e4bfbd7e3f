#include "client/cli/sweep_follow.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "client/cli/errors.h"
#include "client/cli/json.h"
#include "client/cli/live_display.h"
#include "client/cli/output.h"
#include "client/cli/sweep_text.h"
#include "client/cli/sweeps.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

namespace epo::cli {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr absl::Duration kBetweenLooks = absl::Seconds(1);
constexpr absl::Duration kBetweenLines = absl::Seconds(5);
constexpr absl::Duration kLookTimeout = absl::Seconds(30);
// As for a job: a server that restarts may take minutes to load its model.
constexpr absl::Duration kGiveUpAfter = absl::Minutes(10);

void Notice(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

// One GetSweep on a thread of its own, so that the user need not wait for it. Its destructor leaves
// the call.
class Look {
 public:
  Look(Client& client, const std::string& id)
      : thread_([this, &client, id] {
          status_ = client.Connect(stop_);
          if (status_.ok()) {
            v1::GetSweepRequest request;
            request.set_id(id);
            client.Authorize(context_);
            context_.set_deadline(absl::ToChronoTime(absl::Now() + kLookTimeout));
            status_ = client.stub().GetSweep(&context_, request, &sweep_);
          }
          done_ = true;
        }) {}

  ~Look() {
    stop_ = true;
    context_.TryCancel();
    thread_.join();
  }

  bool done() const { return done_; }
  // Once it is done.
  const grpc::Status& status() const { return status_; }
  const v1::Sweep& sweep() const { return sweep_; }

 private:
  std::atomic<bool> stop_ = false;
  std::atomic<bool> done_ = false;
  grpc::ClientContext context_;
  grpc::Status status_;
  v1::Sweep sweep_;
  std::thread thread_;
};

// Whether what a look failed with may be over soon.
bool Passes(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED ||
         status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED || HasRetryInfo(status);
}

class Display {
 public:
  Display(const Session& session, FollowMode mode)
      : terminal_(session.terminal()),
        looks_to_stdout_(mode == FollowMode::kWatch && session.settings().format == Format::kJsonl),
        // Lines of data would run through a display on the same terminal.
        live_(terminal_.live && !(looks_to_stdout_ && terminal_.stdout_is_terminal)),
        lines_(mode == FollowMode::kWatch && !live_ && !looks_to_stdout_) {}

  const SweepView& view() const { return view_; }

  void Found(const v1::Sweep& sweep) {
    if (view_.lost && !live_) Notice("connected again");
    view_.lost.reset();
    std::string line = looks_to_stdout_ ? Compact(ToJson(sweep)) : "";
    if (line != last_line_) Print(line + "\n");
    last_line_ = std::move(line);
    view_.sweep = sweep;
    const absl::Time now = absl::Now();
    view_.pace.Add(sweep, now);
    Draw();
    if (!lines_ || now - told_ < kBetweenLines) return;
    told_ = now;
    Notice(SweepPlainLine(view_, now));
  }

  void Lost(const grpc::Status& status, absl::Time since) {
    const bool first = !view_.lost;
    view_.lost = View::Lost{ConnectionProblem(status), since};
    Draw();
    if (!live_ && first) {
      Notice(absl::StrCat("connection lost, trying again: ", Escape(view_.lost->reason)));
    }
  }

  void Signal(int number) {
    if (number == SIGTSTP) {
      display_.Keep();
      kill(getpid(), SIGSTOP);
    }
    Draw();
  }

  // Ends the display; what is left on the terminal is what it showed last, or nothing.
  void Leave(bool keep) {
    if (keep) {
      display_.Keep();
    } else {
      display_.Clear();
    }
  }

 private:
  void Draw() {
    if (!live_) return;
    const TerminalSize size = StderrSize();
    display_.Draw(SweepFrameLines(view_, absl::Now(), size, terminal_.color_stderr), size);
  }

  const Terminal terminal_;
  const bool looks_to_stdout_;
  const bool live_;
  const bool lines_;
  SweepView view_;
  LiveDisplay display_;
  std::string last_line_;
  absl::Time told_ = absl::InfinitePast();
};

int PrintResult(Session& session, FollowMode mode, const v1::Sweep& sweep) {
  const Format format = session.settings().format;
  if (format == Format::kJson || (format == Format::kJsonl && mode == FollowMode::kWait)) {
    PrintValue(ToJson(sweep), format);
  } else if (format == Format::kTable && mode == FollowMode::kWait) {
    Print(JoinLines(SweepLines(sweep)));
  } else if (format == Format::kTable) {
    return ShowSweepFrontier(session, sweep.id(), /*full=*/false);
  }
  return kDone;
}

}  // namespace

int SweepFollow::Run(const v1::Sweep& sweep) {
  Display display(session_, mode_);
  display.Found(sweep);
  const std::string id = sweep.id();
  const std::string command =
      absl::StrCat("epo ", mode_ == FollowMode::kWatch ? "watch " : "wait ", Escape(id));
  std::optional<absl::Time> lost_since;
  std::optional<Look> look;
  absl::Time next_look = absl::Now();
  while (IsPending(display.view().sweep)) {
    if (!look && absl::Now() >= next_look) look.emplace(session_.client(), id);
    const std::optional<Event> event = events_.Pop(absl::Now() + kTick);
    if (const Signal* signal = event ? std::get_if<Signal>(&*event) : nullptr) {
      if (signal->number != SIGINT && signal->number != SIGTERM) {
        display.Signal(signal->number);
        continue;
      }
      display.Leave(/*keep=*/true);
      Notice(absl::StrCat(Escape(id), " goes on; ", command, " to come back"));
      if (session_.settings().format == Format::kJson) {
        PrintResult(session_, mode_, display.view().sweep);
      }
      return kJobPending;
    }
    if (!look || !look->done()) continue;
    const absl::Time now = absl::Now();
    next_look = now + kBetweenLooks;
    if (look->status().ok()) {
      lost_since.reset();
      display.Found(look->sweep());
    } else {
      if (!lost_since) lost_since = now;
      if (!Passes(look->status()) || now - *lost_since >= kGiveUpAfter) {
        display.Leave(/*keep=*/true);
        const int code = ReportError(look->status(), session_.settings().server);
        Notice(absl::StrCat("the sweep is not harmed by this; ", command, " to come back"));
        return code;
      }
      display.Lost(look->status(), *lost_since);
    }
    look.reset();
  }
  display.Leave(/*keep=*/false);
  const v1::Sweep& ended = display.view().sweep;
  Notice(SweepEndLine(ended));
  const int code = PrintResult(session_, mode_, ended);
  return code == kDone ? ExitCodeOf(ended.state()) : code;
}

}  // namespace epo::cli
