"""What a live server exports for Prometheus."""

import math
import re
import socket
import subprocess
import urllib.error
import urllib.request

import grpc
import pytest

LINE = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def url(running, page="/metrics"):
    (address,) = re.findall(r"metrics on (http://\S+)/metrics", running.log())
    return address + page


def get(running, page="/metrics"):
    try:
        with urllib.request.urlopen(url(running, page), timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Metrics(dict):
    """{(name, frozenset of (label, value)): value}"""

    def __init__(self, text):
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = LINE.match(line).groups()
            key = name, frozenset(LABEL.findall(labels or ""))
            assert key not in self, line
            self[key] = float(value)

    def __call__(self, metric, **labels):
        return self[metric, frozenset(labels.items())]


def metrics(running):
    status, text = get(running)
    assert status == 200
    return Metrics(text)


def create(running, stubs, **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6, "iterations": 5, **fields}
    return running.stub.CreateJob(stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=objective, **fields)))


def watch(running, stubs, job_id):
    return running.stub.WatchJob(stubs.service.WatchJobRequest(id=job_id), timeout=120)


def test_what_a_job_leaves_in_the_metrics(server, stubs, tiny):
    running = server(tiny)
    before = metrics(running)
    assert before("epo_jobs_created_total") == before("epo_steps_total") == 0
    job = create(running, stubs)
    assert list(watch(running, stubs, job.id))[-1].ended.state == stubs.job.Job.SUCCEEDED
    with pytest.raises(grpc.RpcError):
        running.stub.GetJob(stubs.service.GetJobRequest(id="nosuch"))

    now = metrics(running)
    assert now("epo_jobs_created_total") == now("epo_jobs", state="succeeded") == 1
    assert now("epo_jobs", state="running") == now("epo_jobs", state="queued") == now("epo_jobs", state="paused") == 0
    assert now("epo_jobs_ended_total", state="succeeded", reason="done") == 1
    for histogram in ("queue_wait", "first_step", "duration"):
        assert now(f"epo_job_{histogram}_seconds_count") == 1
    assert 0 < now("epo_job_queue_wait_seconds_sum") < now("epo_job_first_step_seconds_sum")
    assert now("epo_job_first_step_seconds_sum") < now("epo_job_duration_seconds_sum") < 120
    assert now("epo_steps_total") == now("epo_round_duration_seconds_count") == now("epo_frontier_points_count") == 5
    # A round of this job scores two parents and eight children of six tokens.
    assert now("epo_round_rows_sum") == 5 * 10 * 6
    assert now("epo_round_rows_bucket", le="64") == 5
    assert now("epo_round_rows_limit") == 8192
    assert now("epo_rounds_in_flight") == 0
    assert now("epo_candidates_scored_total") == 5 * 8
    assert now("epo_candidate_rows_exhaustive_total") == 5 * 8 * 6
    assert 0 < now("epo_candidate_rows_computed_total") < 5 * 8 * 6
    assert 0 < now("epo_candidate_head_rows_computed_total") < now("epo_candidate_rows_computed_total")
    phases = {phase: now("epo_evaluate_seconds_total", phase=phase) for phase in ("prepare", "substitutes", "layers", "head")}
    assert all(seconds > 0 for seconds in phases.values())
    assert sum(phases.values()) < now("epo_round_duration_seconds_sum")
    assert now("epo_store_commit_duration_seconds_count", kind="step") == 5
    assert now("epo_store_committed_bytes_total", kind="step") > 5 * 8 * 6
    assert now("epo_store_refusing_writes") == 0
    assert now("epo_store_file_bytes", file="epo.db-wal") > 0
    assert now("epo_rpcs_total", method="CreateJob", code="OK") == now("epo_rpcs_total", method="WatchJob", code="OK") == 1
    assert now("epo_rpcs_total", method="GetJob", code="NOT_FOUND") == 1
    assert now("epo_rpc_duration_seconds_count", method="GetJob") == 1
    # created, five steps, ended
    assert now("epo_rpc_messages_sent_total", method="WatchJob") == 7
    assert now("epo_rpcs_in_flight", method="WatchJob") == 0

    info = running.stub.GetServerInfo(stubs.service.GetServerInfoRequest())
    model = info.model
    assert now("epo_build_info", version=info.version) == 1
    assert now("epo_model_info", name=model.name, fingerprint=model.fingerprint, architecture=model.architecture,
               device=model.device, dtype=model.dtype) == 1
    assert now("epo_process_resident_memory_bytes") > 20e6
    assert 5 < now("epo_process_open_fds") < now("epo_process_max_fds")
    assert now("epo_process_cpu_seconds_total") >= before("epo_process_cpu_seconds_total") > 0


def test_watchers_and_running_jobs_are_counted_while_they_are_there(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs, iterations=1_000_000)
    streams = [watch(running, stubs, job.id) for _ in range(3)]
    for stream in streams:
        next(update for update in stream if update.sequence == 2)
    now = metrics(running)
    assert now("epo_rpcs_in_flight", method="WatchJob") == 3
    assert now("epo_jobs", state="running") == 1
    for stream in streams:
        stream.cancel()
    running.stub.CancelJob(stubs.service.CancelJobRequest(id=job.id))
    now = metrics(running)
    assert now("epo_jobs_ended_total", state="cancelled", reason="cancelled") == 1
    assert now("epo_jobs", state="running") == 0


def test_the_format(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs)
    list(watch(running, stubs, job.id))
    _, text = get(running)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    values = Metrics(text)
    assert job.id not in text
    assert not any(math.isnan(value) for value in values.values())
    assert {name for name, _ in values if not name.startswith("epo_")} == set()
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert {name for name, kind in types.items() if (kind == "counter") != name.endswith("_total")} == set()
    helps = [line.split(" ", 3) for line in text.splitlines() if line.startswith("# HELP")]
    assert all(len(words) == 4 for words in helps) and len(helps) == len(types)


def test_pages(server, tiny):
    running = server(tiny)
    assert get(running, "/healthz") == (200, "ok\n")
    assert get(running, "/readyz") == (200, "ok\n")
    status, text = get(running, "/etc/passwd")
    assert status == 404 and "/metrics" in text


def test_a_stalled_client_keeps_no_scraper_waiting(server, tiny):
    running = server(tiny)
    host, port = url(running, "").removeprefix("http://").split(":")
    stalled = [socket.create_connection((host, int(port))) for _ in range(50)]
    for connection in stalled[:3]:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    assert get(running)[0] == 200
    for connection in stalled:
        connection.close()


def test_listening(server, tiny):
    first = server(tiny)
    taken = url(first, "").removeprefix("http://")
    second = server(tiny, "--metrics-listen", taken, wait=False)
    assert second.process.wait(30) == 1
    (line,) = second.log().splitlines()
    assert f"cannot listen on {taken}: Address already in use; choose another address with --metrics-listen" in line
    for off in ("off", ""):
        assert "metrics on" not in server(tiny, "--metrics-listen", off).log()
    wrong = server(tiny, "--metrics-listen", "9464", wait=False)
    assert wrong.process.wait(30) == 2
    assert "--metrics-listen" in wrong.log()
