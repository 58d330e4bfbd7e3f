"""`epo` against a real server: JSON shapes, exit codes, settings, errors, help and completion."""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import unicodedata
import uuid

import pytest

SMALL = ["--layer", 1, "--neuron", 3, "--tokens", 6, "--population", 3, "--children", 4, "--topk", 32, "--iterations", 4]
LONG = ["--layer", 1, "--neuron", 3, "--iterations", 100000]
COMMANDS = "submit sweep sweeps watch wait get list pause resume cancel delete frontier history report score tokenize info attribute upload-vector health completion".split()


@pytest.fixture(scope="module")
def phi(module_server, root):
    return module_server(root / "tests/parity/phi-tiny", dtype="float32")


@pytest.fixture
def cli(epo, phi, tmp_path):
    """Runs `epo` on the server with no profile of the user's."""

    def run(*args, env=None, server=phi, **kwargs):
        return epo(*args, server=server, env={"XDG_CONFIG_HOME": str(tmp_path), **(env or {})}, **kwargs)

    return run


@pytest.fixture
def finished(cli):
    """A job that has succeeded, as JSON."""
    result = cli("submit", *SMALL, "--wait", "-o", "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def lines_of(result):
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


# Submitting


def test_submit_prints_the_id_and_how_to_follow(cli):
    result = cli("submit", *SMALL)
    assert result.returncode == 0
    assert re.fullmatch(r"[a-z0-9-]+\n", result.stdout)
    assert f"epo watch {result.stdout.strip()}" in result.stderr


def test_submit_leaves_the_defaults_to_the_server(cli, phi, stubs):
    job = json.loads(cli("submit", "--layer", 0, "--neuron", 7, "-o", "json").stdout)
    cli("cancel", job["id"])
    assert job["state"] in ("QUEUED", "RUNNING")
    spec = job["spec"]
    assert spec["objective"] == {"neuron": {"layer": 0, "neuron": 7}, "terms": [], "combination": "SUM",
                                 "temperature": None, "goal": "MAXIMIZE"}
    published = dict(tokens=12, population=8, children_per_parent=32, iterations=300, penalty_min=0.1, penalty_max=10.0,
                     restart_period=50, restart_penalty={"low": 2.0, "high": 2.0}, seed=0, initial_prompts=[],
                     allow_special_tokens=False, priority=50, deadline=None, history="FULL")
    assert {key: spec[key] for key in published} == published


def test_submit_sends_every_flag(cli):
    ids = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    result = cli("submit", "--layer", 2, "--neuron", 9, "--tokens", 5, "--population", 2, "--children", 3, "--topk", 17,
                 "--iterations", 2, "--penalty-min", 0.25, "--penalty-max", 4, "--restart-every", 7,
                 "--restart-penalty", "0.5:6", "--seed", 2**64 - 1, "--initial-ids", "1,2,3,4,5", "--initial-ids",
                 "[5, 4, 3, 2, 1]", "--allow-special-tokens", "--priority", 60, "--deadline", "2100-01-02T03:04:05Z",
                 "--history", "frontier", "--wait", "-o", "json")
    assert result.returncode == 0, result.stderr
    spec = json.loads(result.stdout)["spec"]
    assert spec == {
        "objective": {"neuron": {"layer": 2, "neuron": 9}, "terms": [], "combination": "SUM", "temperature": None,
                      "goal": "MAXIMIZE"},
        "contexts": [], "across_contexts": "MEAN", "fluency_window": "PROMPT_ONLY", "initial_job": "", "tokens": 5, "population": 2, "children_per_parent": 3,
        "top_k": 17, "penalty_min": 0.25, "penalty_max": 4.0, "iterations": 2, "restart_period": 7,
        "restart_penalty": {"low": 0.5, "high": 6.0}, "seed": 2**64 - 1, "allow_special_tokens": True,
        "priority": 60, "deadline": "2100-01-02T03:04:05Z", "history": "FRONTIER", "constraints": None,
        "initial_prompts": [{"ids": i} for i in ids]}


def test_one_request_id_makes_one_job(cli):
    request_id = str(uuid.uuid4())
    first = cli("submit", *SMALL, "--request-id", request_id)
    again = cli("submit", *SMALL, "--request-id", request_id)
    other = cli("submit", *SMALL, "--seed", 5, "--request-id", request_id)
    assert first.stdout == again.stdout
    assert other.returncode == 64 + 6


def test_submit_without_request_id_makes_a_new_job_each_time(cli):
    assert cli("submit", *SMALL).stdout != cli("submit", *SMALL).stdout


# Following


def test_wait_gives_the_finished_job(finished):
    assert finished["state"] == "SUCCEEDED"
    assert finished["completed_iterations"] == 4
    assert finished["error"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", finished["end_time"])


def test_watch_prints_lines_on_stderr_and_the_frontier_on_stdout(cli):
    result = cli("submit", *SMALL, "--watch")
    assert result.returncode == 0
    header, *points = result.stdout.splitlines()
    assert [name for name in header.split() if name != "round-trips"] == ["target", "cross-entropy", "prompt"]
    assert points and all(re.fullmatch(r' *-?\d+\.\d+ +\d+\.\d+  ((yes|no) +)?".*"', point) for point in points)
    assert "step 4/4, best target" in result.stderr
    assert "SUCCEEDED after 4/4 steps" in result.stderr
    assert "\x1b" not in result.stderr + result.stdout


def test_watch_jsonl_is_one_update_a_line(cli):
    updates = lines_of(cli("submit", *SMALL, "--watch", "-o", "jsonl"))
    assert [u["sequence"] for u in updates] == [1, 2, 3, 4, 5]
    assert [u["step"]["index"] for u in updates[:-1]] == [0, 1, 2, 3]
    assert updates[-1]["ended"]["state"] == "SUCCEEDED"
    assert len(updates[0]["step"]["slots"]) == 3


def test_watch_jsonl_lines_come_as_they_happen(bin_dir, phi, cli):
    job = cli("submit", *LONG).stdout.strip()
    with subprocess.Popen([bin_dir / "epo", "watch", job, "-o", "jsonl", "--server", phi.address], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["sequence"] == 1
        process.terminate()
        assert process.wait(timeout=20) == 8
    assert json.loads(cli("get", job, "-o", "json").stdout)["state"] == "RUNNING"
    cli("cancel", job)


def test_watch_again_tells_the_same(cli, finished):
    first = cli("watch", finished["id"], "-o", "jsonl")
    assert first.stdout == cli("watch", finished["id"], "-o", "jsonl").stdout
    assert json.loads(cli("watch", finished["id"], "-o", "json").stdout) == finished


def test_cancelled_job(cli):
    job = cli("submit", *LONG).stdout.strip()
    assert cli("cancel", job).returncode == 0
    for command in ("wait", "watch"):
        result = cli(command, job, "-o", "json")
        assert result.returncode == 3
        assert json.loads(result.stdout)["state"] == "CANCELLED"
    assert cli("cancel", job).returncode == 64 + 9


def test_delete(cli, finished):
    result = cli("delete", finished["id"])
    assert (result.returncode, result.stdout) == (0, "")
    result = cli("get", finished["id"])
    assert result.returncode == 64 + 5
    assert result.stderr.startswith("epo: ") and finished["id"] in result.stderr


@pytest.mark.parametrize("command", ["get", "watch", "wait", "cancel", "delete", "frontier", "history"])
def test_unknown_job(cli, command):
    result = cli(command, "no-such-job")
    assert (result.returncode, result.stdout) == (64 + 5, "")
    assert len(result.stderr.splitlines()) == 1 and "no-such-job" in result.stderr


# Results


def test_frontier(cli, finished):
    result = cli("frontier", finished["id"], "-o", "json")
    assert result.returncode == 0
    document = json.loads(result.stdout)
    assert list(document) == ["points"]
    points = document["points"]
    assert all(set(p) == {"target", "cross_entropy", "ids", "text", "round_trips"} for p in points)
    assert [p["cross_entropy"] for p in points] == sorted(p["cross_entropy"] for p in points)
    assert lines_of(cli("frontier", finished["id"], "-o", "jsonl")) == points
    last_step = lines_of(cli("watch", finished["id"], "-o", "jsonl"))[-2]["step"]
    assert last_step["frontier"]["points"] == points
    full = lines_of(cli("frontier", finished["id"], "--full", "-o", "jsonl"))
    assert [p for p in points if p not in full] == []


def test_history(cli, finished, phi, stubs):
    result = cli("history", finished["id"], "-o", "json")
    document = json.loads(result.stdout)
    assert list(document) == ["iterations"]
    request = stubs.service.GetHistoryRequest(id=finished["id"])
    expected = list(phi.stub.GetHistory(request))
    assert [i["index"] for i in document["iterations"]] == [0, 1, 2, 3]
    for iteration, wire in zip(document["iterations"], expected, strict=True):
        assert set(iteration) == {"index", "ids", "target", "cross_entropy", "keep"}
        assert iteration["ids"] == [list(t.ids) for t in wire.ids] and len(iteration["ids"]) == 3 + 3 * 4
        # What is printed reads back as the same float32.
        assert [float32(x) for x in iteration["target"]] == list(wire.target)
        assert [float32(x) for x in iteration["cross_entropy"]] == list(wire.cross_entropy)
        assert iteration["keep"] == list(wire.keep)
    assert lines_of(cli("history", finished["id"], "-o", "jsonl")) == document["iterations"]
    table = cli("history", finished["id"]).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["iteration", "0", "1", "2", "3"]


def test_score(cli, phi, stubs):
    texts = ["hello", "[a, b]", "{}", "list"]
    result = cli("score", "--layer", 1, "--neuron", 3, *texts, "--ids", "1,2,3", "-o", "json", "--", "-x")
    document = json.loads(result.stdout)
    assert list(document) == ["scores"]
    assert [s["text"] for s in document["scores"][:4]] == texts
    assert document["scores"][4]["ids"] == [1, 2, 3]
    assert document["scores"][5]["text"] == "-x"
    request = stubs.service.ScoreRequest(prompts=[stubs.frontier.Prompt(text="hello")])
    request.objective.neuron.layer, request.objective.neuron.neuron = 1, 3
    wire = phi.stub.Score(request).scores[0]
    assert float32(document["scores"][0]["target"]) == wire.target
    assert float32(document["scores"][0]["cross_entropy"]) == wire.cross_entropy
    assert set(document["scores"][0]) == {"text", "ids", "target", "cross_entropy", "round_trips"}


def test_score_of_a_single_token_has_no_cross_entropy(cli):
    score, = lines_of(cli("score", "--layer", 1, "--neuron", 3, "--ids", "7", "-o", "jsonl"))
    assert score["cross_entropy"] is None
    assert cli("score", "--layer", 1, "--neuron", 3, "--ids", "7").stdout.splitlines()[1].split()[1] == "-"


def test_tokenize(cli):
    text = "héllo  שלום 👍\n"
    tokens = lines_of(cli("tokenize", text, "-o", "jsonl"))
    import base64

    assert b"".join(base64.b64decode(t["value"]) for t in tokens).decode() == text
    assert json.loads(cli("tokenize", text, "-o", "json").stdout)["tokens"] == tokens


def test_info(cli, phi):
    info = json.loads(cli("info", "-o", "json").stdout)
    assert info["model"]["name"] == "phi-tiny" and info["model"]["dtype"] == "float32"
    assert "phi-tiny" in cli("info").stdout


def test_list(cli, finished):
    job = cli("submit", *LONG).stdout.strip()
    jobs = json.loads(cli("list", "-o", "json").stdout)["jobs"]
    assert [j["id"] for j in jobs[:2]] == [job, finished["id"]]
    assert len(lines_of(cli("list", "--limit", 1, "-o", "jsonl"))) == 1
    succeeded = lines_of(cli("list", "--state", "succeeded", "-o", "jsonl"))
    assert {j["state"] for j in succeeded} == {"SUCCEEDED"}
    cli("cancel", job)
    both = lines_of(cli("list", "--state", "SUCCEEDED,cancelled", "-o", "jsonl"))
    assert {j["state"] for j in both} <= {"SUCCEEDED", "CANCELLED"}
    assert finished["id"] in cli("list").stdout


def test_list_follows_pages(server, root, stubs, epo):
    running = server(root / "tests/parity/phi-tiny")
    spec = stubs.job.JobSpec(tokens=2, population=1, children_per_parent=1, top_k=1, iterations=1)
    spec.objective.neuron.layer = 1
    ids = [running.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec, request_id=str(uuid.uuid4()))).id
           for _ in range(205)]
    listed = [j["id"] for j in lines_of(epo("list", "-o", "jsonl", server=running))]
    assert listed == ids[::-1]
    assert [j["id"] for j in lines_of(epo("list", "--limit", 203, "-o", "jsonl", server=running))] == ids[:1:-1]
    assert len(epo("list", server=running).stdout.splitlines()) == 206


# Errors


def test_every_bad_field_has_a_line_with_its_flag(cli):
    result = cli("submit", "--layer", 99, "--neuron", -1, "--topk", 0, "--tokens", 1, "--penalty-min", "nan")
    assert (result.returncode, result.stdout) == (64 + 3, "")
    lines = result.stderr.splitlines()
    assert all(line.startswith("epo: ") for line in lines)
    for flag in ("--layer (spec.objective.neuron.layer): ", "--neuron (", "--topk (spec.top_k): ", "--tokens (",
                 "--penalty-min ("):
        assert sum(line.startswith(f"epo: {flag}") for line in lines) == 1, flag


def test_an_empty_frontier_is_told(cli):
    strict = [*SMALL, "--max-cross-entropy", 0.001]
    watched = cli("submit", *strict, "--watch")
    job = watched.stderr.split()[1]
    ended, notice = watched.stderr.splitlines()[-2:]
    assert (watched.returncode, watched.stdout, notice) == (1, "", f"the frontier of {job} is empty")
    assert "FAILED" in ended and "constraints.max_cross_entropy: no prompt that was scored" in ended
    shown = cli("frontier", job)
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr.startswith(f"the frontier of {job} is empty; it is FAILED: constraints.max_cross_entropy")
    assert json.loads(cli("frontier", job, "-o", "json").stdout) == {"points": []}
    endless = cli("submit", *strict, "--iterations", 1_000_000).stdout.strip()
    deadline = time.monotonic() + 60
    while "no step is done" in (said := cli("frontier", endless).stderr):
        assert time.monotonic() < deadline
    assert said == f"the frontier of {endless} is empty: no prompt has a cross-entropy of at most 0.001 (--max-cross-entropy)\n"
    cli("cancel", endless)
    late = cli("submit", *strict, "--iterations", 1_000_000, "--deadline", "1s", "--wait", "-o", "json")
    job = json.loads(late.stdout)
    assert late.returncode == 1
    assert cli("frontier", job["id"]).stderr.endswith(f"; it is FAILED: {job['error']['message']}\n")
    sweep = cli("sweep", "--neurons", "1:2-3", *strict[4:], "--wait", "-o", "json")
    shown = cli("frontier", json.loads(sweep.stdout)["id"])
    assert shown.stdout == "" and "are empty; epo list --sweep" in shown.stderr


def test_the_last_of_a_repeated_flag_counts(cli):
    """Of one value: a flag that may be given many times still has them all."""
    spec = json.loads(cli("submit", "--neuron", "1:3", "--neuron", "1:4", "--iterations", 25, "--tokens", 9, "--position", "max", "--iterations", 6,
                          "--position", "prompt:0", "--prefix", "a", "--prefix", "b", "--dry-run", "-o", "table", "-o", "json").stdout)["spec"]
    assert (spec["iterations"], spec["tokens"], len(spec["contexts"])) == (6, 9, 2)
    assert [(t["neuron"]["neuron"], t["position"]["index"]) for t in spec["objective"]["terms"]] == [(3, 0), (4, 0)]


def test_a_bad_prompt_is_named_by_its_flag(cli):
    result = cli("score", "--layer", 1, "--neuron", 3, "fine", "--ids", "1,999999")
    assert result.returncode == 67
    assert result.stderr.startswith("epo: --ids (prompts[1]")


@pytest.mark.parametrize(
    "args, message",
    [
        (["submit", "--layer", "0"], "--neuron, --objective or another flag of --help-objective is required"),
        (["submit", "--neuron", "1"], "--neuron: '1' lacks its layer"),
        (["submit", "--neuron", "1:1", "--position", "last"], "--position: 'last' is no position"),
        (["submit", "--versus", " cat"], "--versus: belongs behind a --logit-diff"),
        (["submit", "--direction", "v.npy@1"], "--direction: v.npy: cannot be read"),
        (["submit", "--neuron", "1:1", "--objective", "o.json"], "--objective: says all of it"),
        (["submit", "--neuron", "1:1", "--prefix", "a", "--prefix", "b", "--suffix", "c", "--suffix", "d", "--suffix", "e"],
         "--suffix: is given 3 times"),
        (["submit", "--neuron", "1:1", "--standardized"], "--standardized: is said of a --direction"),
        (["submit", "--objective", "o.json", "--standardized"], "--objective: says all of it"),
        (["submit", "--neuron", "1:1", "--layer", "2"], "--layer: is said of a --neuron K alone"),
        (["submit", "--continuation", "a", "--position", "2"], "--position: is not said of a --continuation"),
        (["submit", "--neuron", "1:1", "--across", "min"], "--across: is said of contexts"),
        (["submit", "--neuron", "1:1", "--prefix", "a", "--count-suffix"], "--count-suffix: is said of a --suffix"),
        *((["attribute", "--job", "j", *flags], f"{flags[0]}: is not said beside --job")
          for flags in (["--minimize"], ["--neuron", "1:1"], ["--prefix", "a"], ["--objective", "o.json"], ["--across", "min"], ["--bos"])),
        (["upload-vector", "w.bin"], "FILE: w.bin"),
        (["upload-vector", "/tmp"], "FILE: /tmp: cannot be read: Is a directory"),
        (["submit", "--objective", "/tmp"], "--objective: /tmp: cannot be read: Is a directory"),
        (["submit", "--layer", "x", "--neuron", "1"], "--layer: 'x' is no whole number"),
        (["submit", "--layer", "1", "--neuron", "1", "--seed", "-1"], "--seed: '-1'"),
        (["submit", "--layer", "1", "--neuron", "1", "--restart-penalty", "1:x"], "--restart-penalty: '1:x'"),
        (["submit", "--layer", "1", "--neuron", "1", "--initial-ids", "1,y"], "--initial-ids: 'y' is no token id"),
        (["submit", "--layer", "1", "--neuron", "1", "--watch", "--wait"], "--watch excludes --wait"),
        (["score", "--layer", "1", "--neuron", "1"], "TEXT or --ids is required"),
        (["list", "--state", "done"], "--state: 'done'"),
        (["list", "--limit", "0"], "--limit: 0 is less than 1"),
        (["get"], "JOB is required"),
        (["get", "a", "b"], "b"),
        (["nonsense"], "unknown command 'nonsense'"),
        (["--nonsense"], "unknown option '--nonsense'"),
        (["list", "-o", "yaml"], "'yaml'"),
        (["completion", "csh"], "csh"),
    ],
)
def test_usage_errors(cli, args, message):
    result = cli(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr.splitlines()[0]


@pytest.mark.parametrize("command", [["info"], ["list"], ["watch", "j"], ["wait", "j"], ["history", "j"],
                                     ["submit", "--layer", "1", "--neuron", "1", "--watch"]])
def test_unreachable_server(cli, command):
    start = time.monotonic()
    result = cli(*command, "--server", "127.0.0.1:1")
    assert result.returncode == 78 and time.monotonic() - start < 5
    assert result.stderr == ("epo: cannot reach the server at 127.0.0.1:1: Connection refused; is epo-server running there? "
                             "(--server or EPO_SERVER names another)\n")


def test_a_server_that_never_answers(cli):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        result = cli("info", "--server", f"127.0.0.1:{silent.getsockname()[1]}")
        assert result.returncode == 78 and time.monotonic() - start < 8
        assert "no answer within 5 s" in result.stderr


# Settings


def test_flag_over_environment_over_profile(epo, phi, tmp_path):
    (tmp_path / "epo").mkdir()
    profile = tmp_path / "epo/config.toml"
    env = {"XDG_CONFIG_HOME": str(tmp_path), "EPO_SERVER": ""}
    profile.write_text(f'# mine\nserver = "{phi.address}"\noutput = "json"\n')
    assert json.loads(epo("info", env=env).stdout)["model"]["name"] == "phi-tiny"
    assert epo("info", "-o", "table", env=env).stdout.startswith("server")
    assert epo("info", env={**env, "EPO_SERVER": "127.0.0.1:1"}).returncode == 78
    assert epo("info", "--server", phi.address, env={**env, "EPO_SERVER": "127.0.0.1:1"}).returncode == 0
    profile.write_text('sever = "x"\n')
    result = epo("info", env=env)
    assert result.returncode == 2 and f"{profile}: unknown key 'sever'" in result.stderr


def test_global_options_stand_before_or_behind_the_command(epo, phi):
    before = epo("--server", phi.address, "-o", "json", "info")
    behind = epo("info", "--server", phi.address, "-o", "json")
    assert before.returncode == 0 and before.stdout == behind.stdout


# Text


def test_tables_show_no_control_characters(cli):
    text = 'a\x1b[31m\n\u202eb\u2066"\x9b2J\u200b'
    for args in (["tokenize", text], ["score", "--layer", "1", "--neuron", "3", text]):
        out = cli(*args).stdout
        assert not [c for c in out.replace("\n", "") if unicodedata.category(c) in ("Cc", "Cf")], out
        assert r"\x1b" in out
    row = cli("score", "--layer", "1", "--neuron", "3", text).stdout.splitlines()[1]
    assert row.endswith(r'"a\x1b[31m\n\u{202e}b\u{2066}\"\x9b2J\u{200b}"')
    score, = lines_of(cli("score", "--layer", "1", "--neuron", "3", text, "-o", "jsonl"))
    assert score["text"] == text


# Standard output


def shell(command, phi, bin_dir):
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], text=True, capture_output=True, timeout=60,
                          env={**os.environ, "EPO_SERVER": phi.address, "PATH": f"{bin_dir}:{os.environ['PATH']}"})


def test_a_reader_that_has_seen_enough(phi, bin_dir, cli):
    job = cli("submit", "--layer", 1, "--neuron", 3, "--iterations", 30, "--wait", "-o", "json")
    job_id = json.loads(job.stdout)["id"]
    result = shell(f"epo history {job_id} -o jsonl | head -c 100", phi, bin_dir)
    assert (result.returncode, len(result.stdout), result.stderr) == (0, 100, "")


@pytest.mark.parametrize("command", ["info", "--help", "--version", "completion bash", "list -o json"])
def test_a_full_disk_is_an_error(phi, bin_dir, command):
    result = shell(f"epo {command} > /dev/full", phi, bin_dir)
    assert result.returncode == 2 and "No space left on device" in result.stderr


# Help and completion


def test_version(epo):
    result = epo("--version")
    assert result.returncode == 0 and re.fullmatch(r"epo \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS)])
def test_help_fits_a_screen(epo, command):
    result = epo(*command, "--help")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    if command:
        assert f"Example: epo {command[0]}" in result.stdout
    else:
        assert "78" in result.stdout and all(re.search(rf"^  (?:[a-z]+, )?{c}\b", result.stdout, re.M) for c in COMMANDS)


def test_bash_completion(phi, bin_dir, finished):
    def complete(*words):
        quoted = " ".join(f"'{w}'" for w in words)
        result = shell(f"eval \"$(epo completion bash)\"; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _epo; "
                       'echo "${COMPREPLY[@]}"', phi, bin_dir)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.split()

    assert complete("epo", "") == COMMANDS
    assert complete("epo", "fr") == ["frontier"]
    assert complete("epo", "submit", "--restart") == ["--restart-every", "--restart-penalty"]
    assert complete("epo", "list", "-o", "") == ["table", "json", "jsonl", "csv"]
    assert complete("epo", "list", "--state", "ru") == ["running"]
    assert finished["id"] in complete("epo", "--server", phi.address, "watch", "")


@pytest.mark.parametrize("name, check", [("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])])
def test_other_completions_are_well_formed(epo, tmp_path, name, check):
    result = epo("completion", name)
    assert result.returncode == 0 and all(c in result.stdout for c in COMMANDS)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed; the script's syntax was not checked")
    script = tmp_path / "script"
    script.write_text(result.stdout)
    subprocess.run([*check, script], check=True)
