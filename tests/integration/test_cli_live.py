"""`epo` on a terminal: the display that is redrawn in place, Ctrl-C, resizing, NO_COLOR, and watches over a server's restart."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import termios
import time
import unicodedata

import pexpect
import pexpect.fdpexpect
import pytest

LONG = ["--layer", "1", "--neuron", "3", "--iterations", "100000"]
CONTROL = re.compile(r"\x1b\[(\?25)?(\d*(?:;\d+)*)([A-Za-z])")


class Screen:
    """What a terminal shows of a stream of characters. Knows what the display may use and raises on everything else."""

    def __init__(self, columns):
        self.columns = columns
        self.lines = [""]
        self.row = 0
        self.column = 0
        self.cursor_shown = True
        self.styled = False

    def feed(self, text):
        position = 0
        while position < len(text):
            if text[position] == "\x1b":
                match = CONTROL.match(text, position)
                assert match, f"unknown control sequence at {text[position:position + 10]!r}"
                self.control(*match.groups())
                position = match.end()
                continue
            self.put(text[position])
            position += 1

    def control(self, private, number, final):
        if private:
            self.cursor_shown = {"h": True, "l": False}[final]
        elif final == "A":
            assert int(number) <= self.row, "the cursor goes above what was printed"
            self.row -= int(number)
        elif final == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif final == "J":
            self.lines = self.lines[: self.row + 1]
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif final == "m":
            self.styled = True
        else:
            raise AssertionError(f"unknown control sequence {number}{final}")

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        else:
            assert unicodedata.category(character) not in ("Cc", "Cf"), f"{character!r} reached the terminal raw"
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def text(self):
        return "\n".join(self.lines)


def width(line):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.fixture(scope="module")
def phi(module_server, root):
    return module_server(root / "tests/parity/phi-tiny", dtype="float32")


class Child(pexpect.fdpexpect.fdspawn):
    """`epo` on a terminal of its own. Started by subprocess: pexpect forks, which gRPC's threads in this process do not always survive."""

    def __init__(self, command, rows, columns, env):
        master, slave = os.openpty()
        super().__init__(master, encoding="utf-8", timeout=60)
        self.setwinsize(rows, columns)
        self.logfile_read = Log()
        self.process = subprocess.Popen(["setsid", "--ctty", *command], env=env, stdin=slave, stdout=slave, stderr=slave)
        self.pid = self.process.pid
        os.close(slave)

    def setwinsize(self, rows, columns):
        fcntl.ioctl(self.child_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.fixture
def terminal(bin_dir, phi, tmp_path):
    """Starts `epo` on a terminal: terminal("watch", JOB, rows=24, columns=80, env={...})."""
    children = []

    def start(*args, rows=24, columns=80, env=None, server=phi):
        environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")}
        environment |= {"TERM": "xterm-256color", "EPO_SERVER": server.address, "XDG_CONFIG_HOME": str(tmp_path)} | (env or {})
        children.append(Child([bin_dir / "epo", *args], rows, columns, environment))
        return children[-1]

    yield start
    for child in children:
        child.process.kill()
        child.process.wait()
        child.close()


class Log(list):
    def write(self, text):
        self.append(text)

    def flush(self):
        pass


def output(child):
    return "".join(child.logfile_read)


def finish(child):
    child.expect(pexpect.EOF)
    return child.process.wait()


def interrupt(child):
    child.send("\x03")
    return finish(child)


def screen(child, columns=80):
    shown = Screen(columns)
    shown.feed(output(child))
    return shown


@pytest.fixture
def job(epo, phi):
    """A job that runs until the test is over."""
    job_id = epo("submit", *LONG, server=phi).stdout.strip()
    yield job_id
    epo("cancel", job_id, server=phi)


def test_the_display_ends_in_the_frontier(terminal):
    child = terminal("submit", "--layer", "1", "--neuron", "3", "--iterations", "30", "--watch")
    assert finish(child) == 0
    shown = screen(child)
    assert shown.cursor_shown and shown.styled
    first, second, header, *points = shown.text().rstrip().splitlines()
    assert first.startswith("submitted ")
    assert "SUCCEEDED after 30/30 steps" in second
    assert [name for name in header.split() if name != "round-trips"] == ["target", "cross-entropy", "prompt"]
    assert points
    # It was drawn in place meanwhile: a bar, and the cursor back to the top of it.
    assert "█" in output(child) and "evaluations/s" in output(child) and re.search(r"\x1b\[\d+A", output(child))


@pytest.mark.parametrize("rows, columns", [(24, 80), (40, 140), (8, 30), (3, 20)])
def test_the_display_fits_the_terminal(terminal, job, rows, columns):
    child = terminal("watch", job, rows=rows, columns=columns)
    child.expect(r"\x1b\[\d+A(?s:.*)\x1b\[\d+A")
    assert interrupt(child) == 8
    frames = output(child).split("\x1b[?25l")[1:-1]
    assert len(frames) >= 2
    for frame in frames:
        lines = CONTROL.sub("", frame).replace("\r", "").split("\n")
        assert len(lines) <= rows, frame
        assert max(map(width, lines)) < columns, frame
    plotted = any(re.search(r"\d +cross-entropy +\d", frame) for frame in frames)
    assert plotted == (rows >= 24)


@pytest.mark.parametrize("locale, dots", [("C.UTF-8", re.compile("[\u2801-\u28ff]")), ("C", re.compile(r"\*"))])
def test_the_frontier_is_plotted(terminal, job, locale, dots):
    child = terminal("watch", job, env={"LC_ALL": locale})
    child.expect(r"\d +cross-entropy +\d(?s:.*)\x1b\[\d+A")
    assert interrupt(child) == 8
    lines = CONTROL.sub("", output(child).split("\x1b[?25l")[-2]).replace("\r", "").split("\n")
    [below] = [i for i, line in enumerate(lines) if re.fullmatch(r" +[\d.e-]+ +cross-entropy +[\d.e-]+", line)]
    canvas, points = lines[below - 6 : below], [line.split()[:2] for line in lines[below + 3 :] if re.match(r" *-?\d", line)]
    assert all(dots.search(canvas[row]) for row in (0, -1)) and not dots.search(lines[below])
    # Labelled with the table's ends, which are the frontier's.
    assert [canvas[0].split()[0], canvas[-1].split()[0]] == [points[-1][0], points[0][0]]
    assert lines[below].split() == [points[0][1], "cross-entropy", points[-1][1]]


def test_ctrl_c_detaches_and_says_how_to_come_back(terminal, job, epo, phi):
    child = terminal("watch", job)
    child.expect("evaluations/s")
    assert interrupt(child) == 8
    shown = screen(child)
    assert shown.cursor_shown
    assert shown.text().rstrip().splitlines()[-1] == f"job {job} goes on; epo watch {job} to come back"
    assert json.loads(epo("get", job, "-o", "json", server=phi).stdout)["state"] == "RUNNING"


def test_ctrl_c_while_waiting(terminal, job):
    child = terminal("wait", job)
    child.expect("100000")
    assert interrupt(child) == 8
    assert f"epo wait {job} to come back" in output(child)
    assert "prompt" not in output(child)


def test_ctrl_z_gives_the_cursor_back_and_fg_goes_on(terminal, job):
    child = terminal("watch", job)
    child.expect("evaluations/s")
    child.send("\x1a")
    deadline = time.monotonic() + 20
    while process_state(child.pid) != "T":
        assert time.monotonic() < deadline, "not stopped"
        time.sleep(0.05)
    child.expect(pexpect.TIMEOUT, timeout=0.5)
    assert screen(child).cursor_shown
    os.kill(child.pid, signal.SIGCONT)
    child.expect("evaluations/s")
    assert not screen(child).cursor_shown
    assert interrupt(child) == 8


def process_state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]


def test_a_narrower_terminal(terminal, job):
    child = terminal("watch", job, columns=140)
    child.expect("evaluations/s")
    before = len(child.logfile_read)
    child.setwinsize(10, 40)
    child.expect(r"\x1b\[\d+A(?s:.*)\x1b\[\d+A")
    assert interrupt(child) == 8
    frames = "".join(child.logfile_read[before:]).split("\x1b[?25l")
    # The last whole frame; what was on its way when the size changed may be wide.
    lines = CONTROL.sub("", frames[-2]).replace("\r", "").split("\n")
    assert len(lines) <= 10 and max(map(width, lines)) < 40


def test_a_report_tells_prompt_and_token(terminal, epo, phi, tmp_path):
    job = epo("submit", "--layer", 1, "--neuron", 3, "--iterations", 4, server=phi).stdout.strip()
    assert epo("wait", job, server=phi).returncode == 0
    child = terminal("report", job, "--out", tmp_path / "report.html")
    assert finish(child) == 0
    shown = output(child)
    prompts, tokens = re.search(r"attributing prompt 1 of (\d+), token 1 of (\d+)", shown).groups()
    places = re.findall(r"attributing prompt (\d+) of \d+, token (\d+) of", shown)
    assert [(int(p), int(t)) for p, t in places] == [(p, t) for p in range(1, int(prompts) + 1) for t in range(1, int(tokens) + 1)]


def test_no_color(terminal, job):
    child = terminal("watch", job, env={"NO_COLOR": "1"})
    child.expect(r"\x1b\[\d+A")
    assert interrupt(child) == 8
    assert not screen(child).styled


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}, {"CI": "true"}])
def test_plain_lines_where_nothing_can_be_redrawn(terminal, env):
    child = terminal("submit", "--layer", "1", "--neuron", "3", "--iterations", "20", "--watch", env=env)
    assert finish(child) == 0
    assert "\x1b" not in output(child) and not re.search("[█\u2800-\u28ff]", output(child))
    assert "step 20/20, best target" in output(child)


def test_plain_lines_are_few(epo, phi, job):
    """About one a second, though the steps are many more."""
    with subprocess.Popen(["timeout", "-s", "INT", "3", *watch_command(epo, job)], stderr=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env={**os.environ, "EPO_SERVER": phi.address}) as process:
        _, stderr = process.communicate(timeout=30)
    assert 1 <= sum(line.startswith("step ") for line in stderr.splitlines()) <= 5


def watch_command(epo, job):
    return [epo("--version").args[0], "watch", job]


def test_prompts_of_many_scripts(terminal):
    """Right-to-left text and wide characters come through; what could steer the terminal is shown (Screen raises on it)."""
    text = "שלום 日本\u202e\x1b[2J"
    child = terminal("submit", "--layer", "1", "--neuron", "3", "--iterations", "1", "--population", "1", "--children", "1",
                     "--initial-text", text, "--watch")
    assert finish(child) == 0
    shown = screen(child).text()
    # One token at most differs from the text's.
    assert "שלום" in shown or "日本" in shown
    assert r"\u{202e}" in shown or r"\x1b[2J" in shown


def test_lines_of_json_do_not_run_through_a_display(terminal):
    child = terminal("submit", "--layer", "1", "--neuron", "3", "--iterations", "5", "--watch", "-o", "jsonl")
    assert finish(child) == 0
    assert "\x1b" not in output(child)
    lines = [json.loads(line) for line in output(child).splitlines() if line.startswith("{")]
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_watch_outlives_the_servers_death(server, root, epo, bin_dir, tmp_path):
    """kill -9 and a restart on the same port and state: every step once, though the watcher never left."""
    first = server(root / "tests/parity/phi-tiny")
    job = epo("submit", "--layer", 1, "--neuron", 3, "--iterations", 150, server=first).stdout.strip()
    with subprocess.Popen([bin_dir / "epo", "watch", job, "-o", "jsonl", "--server", first.address], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        lines = [json.loads(watch.stdout.readline()) for _ in range(5)]
        first.kill()
        port = int(first.address.rsplit(":", 1)[1])
        server(root / "tests/parity/phi-tiny", state_dir=first.state_dir, port=port)
        lines += [json.loads(line) for line in watch.stdout]
        assert watch.wait(timeout=60) == 0, watch.stderr.read()
        stderr = watch.stderr.read()
    assert [line["sequence"] for line in lines] == list(range(1, 152))
    assert "connection lost, trying again" in stderr and "connected again" in stderr


def test_the_display_says_that_the_connection_is_lost(server, root, epo, terminal):
    running = server(root / "tests/parity/phi-tiny")
    job = epo("submit", *LONG, server=running).stdout.strip()
    child = terminal("watch", job, server=running)
    child.expect("evaluations/s")
    running.kill()
    child.expect(r"connection lost \d+s ago, trying again: ")
    assert interrupt(child) == 8
    assert screen(child).cursor_shown
