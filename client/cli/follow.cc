#include "client/cli/follow.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <signal.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/cli/errors.h"
#include "client/cli/frame.h"
#include "client/cli/json.h"
#include "client/cli/live_display.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/watch.h"

namespace epo::cli {
namespace {

constexpr absl::Duration kLeastBetweenFrames = absl::Milliseconds(100);
// The ETA counts down between steps.
constexpr absl::Duration kLongestBetweenFrames = absl::Seconds(1);
constexpr absl::Duration kLeastBetweenLines = absl::Seconds(1);

void Notice(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

// Shows a watch as it goes.
class Display : public Watcher {
 public:
  Display(const Session& session, FollowMode mode, const v1::Job& job)
      : terminal_(session.terminal()),
        updates_to_stdout_(mode == FollowMode::kWatch &&
                           session.settings().format == Format::kJsonl),
        with_frontier_(mode == FollowMode::kWatch),
        // Lines of data would run through a display on the same terminal.
        live_(terminal_.live && !(updates_to_stdout_ && terminal_.stdout_is_terminal)),
        lines_(mode == FollowMode::kWatch && !live_ && !updates_to_stdout_) {
    view_.job = job;
  }

  const View& view() const { return view_; }

  void OnFound(const v1::Job& job) override {
    if (view_.lost && !live_) Notice("connected again");
    view_.lost.reset();
    view_.job = job;
    view_.progress.Found(job);
    Draw();
  }

  void OnUpdate(const v1::WatchJobResponse& update) override {
    view_.lost.reset();
    if (updates_to_stdout_) Print(Compact(ToJson(update)) + "\n");
    if (update.has_ended()) {
      view_.job = update.ended();
      view_.progress.Ended(update.ended());
      return;
    }
    view_.progress.Step(update.step(), absl::Now());
    if (update.step().index() >= view_.job.completed_iterations()) {
      view_.job.set_completed_iterations(update.step().index() + 1);
      SetRunning();
    }
    view_.frontier = update.step().frontier();
    changed_ = true;
    if (live_) {
      DrawAfter(kLeastBetweenFrames);
    } else if (lines_) {
      PrintLine(update.step());
    }
  }

  void OnState(const v1::Job& job) override {
    const std::string before = StateText(view_.job, absl::Now());
    view_.job = job;
    const std::string now = StateText(job, absl::Now());
    if (live_) {
      Draw();
    } else if (lines_ && now != before) {
      Notice(now);
    }
  }

  void OnLost(const grpc::Status& status, absl::Time since) override {
    const bool first = !view_.lost;
    view_.lost = View::Lost{ConnectionProblem(status), since};
    if (live_) {
      Draw();
    } else if (first) {
      Notice(absl::StrCat("connection lost, trying again: ", Escape(view_.lost->reason)));
    }
  }

  void OnIdle() override {
    if (live_) DrawAfter(changed_ ? kLeastBetweenFrames : kLongestBetweenFrames);
  }

  void OnSignal(int number) override {
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
  void SetRunning() {
    view_.job.set_state(v1::Job::RUNNING);
    view_.job.clear_queue_position();
    view_.job.clear_estimated_start_time();
  }

  void Draw() {
    if (!live_) return;
    const TerminalSize size = StderrSize();
    drawn_ = absl::Now();
    changed_ = false;
    display_.Draw(
        FrameLines(view_, with_frontier_, drawn_, size, terminal_.color_stderr, terminal_.utf8),
        size);
  }

  void DrawAfter(absl::Duration since_last) {
    if (absl::Now() - drawn_ >= since_last) Draw();
  }

  void PrintLine(const v1::Step& step) {
    const absl::Time now = absl::Now();
    const bool last = step.index() + 1 == view_.progress.total();
    if (!last && now - drawn_ < kLeastBetweenLines) return;
    drawn_ = now;
    Notice(PlainLine(view_, now));
  }

  const Terminal terminal_;
  const bool updates_to_stdout_;
  const bool with_frontier_;
  const bool live_;
  const bool lines_;
  View view_;
  LiveDisplay display_;
  absl::Time drawn_ = absl::InfinitePast();
  bool changed_ = false;
};

void PrintResult(const Session& session, FollowMode mode, const View& view) {
  const Format format = session.settings().format;
  if (format == Format::kJson || (format == Format::kJsonl && mode == FollowMode::kWait)) {
    PrintValue(ToJson(view.job), format);
  } else if (format == Format::kTable && mode == FollowMode::kWait) {
    Print(JoinLines(JobLines(view.job)));
  } else if (format == Format::kTable && view.frontier.points_size() == 0) {
    Notice(EmptyFrontierLine(view.job));
  } else if (format == Format::kTable) {
    Print(JoinLines(FrontierLines(view.frontier, 0, 0, session.terminal().color_stdout)));
  }
}

}  // namespace

int Follow::Run(const v1::Job& job, int64_t after_sequence) {
  Display display(session_, mode_, job);
  WatchOptions options;
  options.after_sequence = after_sequence;
  // Who only waits for the end needs no step.
  options.latest = latest_ || mode_ == FollowMode::kWait;
  // It gave us the job.
  options.reached = true;
  const WatchResult result = Watch(session_.client(), job.id(), options, events_, display);
  display.Leave(/*keep=*/result.kind != WatchResult::kEnded);
  const std::string id = Escape(job.id());
  const std::string command = mode_ == FollowMode::kWatch ? "watch" : "wait";
  switch (result.kind) {
    case WatchResult::kEnded:
      Notice(EndLine(result.job));
      PrintResult(session_, mode_, display.view());
      return ExitCodeOf(result.job.state());
    case WatchResult::kDetached:
      Notice(absl::StrCat("job ", id, " goes on; epo ", command, " ", id, " to come back"));
      // A script that reads JSON gets the job as it was last told, its id above all.
      if (session_.settings().format == Format::kJson) PrintResult(session_, mode_, display.view());
      return kJobPending;
    case WatchResult::kError:
      break;
  }
  const int code = ReportError(result.status, session_.settings().server);
  if (!display.view().job.id().empty() && display.view().progress.total() > 0) {
    Notice(absl::StrCat("the job is not harmed by this; epo ", command, " ", id, " to come back"));
  }
  return code;
}

}  // namespace epo::cli
