"""Priorities, pausing, deadlines, the queue and the drain, over real sockets and the command line."""

import json
import signal
import time
import uuid

import grpc
import pytest
from google.protobuf import timestamp_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

FAILED_PRECONDITION = 64 + 9
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
SMALL = ["--layer", 2, "--neuron", 5, "--tokens", 6, "--population", 2, "--children", 4, "--topk", 16]
# A step takes seconds.
BIG = {"population": 64, "children_per_parent": 256, "tokens": 32, "iterations": 100_000}


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def create(running, stubs, **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6, "iterations": 100_000, **fields}
    return running.stub.CreateJob(stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=objective, **fields)), timeout=30)


def get(running, stubs, job_id):
    return running.stub.GetJob(stubs.service.GetJobRequest(id=job_id), timeout=30)


def watch(running, stubs, job_id, after=0):
    return running.stub.WatchJob(stubs.service.WatchJobRequest(id=job_id, after_sequence=after), timeout=120)


def history(running, stubs, job_id):
    return list(running.stub.GetHistory(stubs.service.GetHistoryRequest(id=job_id), timeout=120))


def wait_for(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return value


def wait_for_steps(running, stubs, job_id, count):
    wait_for(lambda: get(running, stubs, job_id).completed_iterations >= count)


def stamp(seconds_ahead):
    out = timestamp_pb2.Timestamp()
    out.FromNanoseconds(time.time_ns() + int(seconds_ahead * 1e9))
    return out


def error_details(error):
    blob = dict(error.trailing_metadata())["grpc-status-details-bin"]
    return {d.TypeName().rsplit(".", 1)[-1]: d for d in status_pb2.Status.FromString(blob).details}


def test_pause_and_resume(server, stubs, tiny, epo):
    running = server(tiny, dtype="float64")
    whole = create(running, stubs, iterations=80)
    assert list(watch(running, stubs, whole.id))[-1].ended.state == stubs.job.Job.SUCCEEDED

    job = create(running, stubs, iterations=80).id
    wait_for_steps(running, stubs, job, 3)
    paused = epo("pause", job, "-o", "json", server=running)
    assert paused.returncode == 0, paused.stderr
    assert json.loads(paused.stdout)["state"] == "PAUSED"
    steps = json.loads(paused.stdout)["completed_iterations"]
    again = epo("pause", job, server=running)
    assert again.returncode == FAILED_PRECONDITION and "paused already" in again.stderr
    assert [line["id"] for line in map(json.loads, epo("list", "--state", "paused", "-o", "jsonl", server=running).stdout.splitlines())] == [job]

    # It outlives both kinds of end.
    for end in (signal.SIGTERM, signal.SIGKILL):
        running.stop(end)
        running = server(tiny, dtype="float64", state_dir=running.state_dir)
        other = create(running, stubs, iterations=3)
        assert list(watch(running, stubs, other.id))[-1].ended.state == stubs.job.Job.SUCCEEDED
        held = get(running, stubs, job)
        assert (held.state, held.completed_iterations) == (stubs.job.Job.PAUSED, steps)

    resumed = epo("resume", job, "-o", "json", server=running)
    assert resumed.returncode == 0 and json.loads(resumed.stdout)["state"] == "QUEUED"
    updates = list(watch(running, stubs, job))
    assert [u.sequence for u in updates if u.sequence] == list(range(1, 82))
    assert updates[-1].ended.state == stubs.job.Job.SUCCEEDED
    assert history(running, stubs, job) == history(running, stubs, whole.id)
    for command in ("pause", "resume"):
        ended = epo(command, job, server=running)
        assert ended.returncode == FAILED_PRECONDITION and "already ended: SUCCEEDED" in ended.stderr


def test_a_watcher_is_told_that_the_job_is_held(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs).id
    stream = watch(running, stubs, job)
    assert next(stream).HasField("created")
    wait_for_steps(running, stubs, job, 1)
    running.stub.PauseJob(stubs.service.PauseJobRequest(id=job), timeout=30)
    beat = next(u for u in stream if u.HasField("heartbeat"))
    assert (beat.sequence, beat.heartbeat.job.id, beat.heartbeat.job.state) == (0, job, stubs.job.Job.PAUSED)
    running.stub.ResumeJob(stubs.service.ResumeJobRequest(id=job), timeout=30)
    assert next(u for u in stream if u.HasField("step")).sequence > beat.heartbeat.job.completed_iterations
    error = refused(running.stub.ResumeJob, stubs.service.ResumeJobRequest(id=job))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    info = error_details_pb2.ErrorInfo()
    assert error_details(error)["ErrorInfo"].Unpack(info)
    assert (info.reason, info.metadata["id"], info.metadata["state"]) == ("JOB_NOT_PAUSED", job, "RUNNING")


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value


def test_the_queue_is_shown_everywhere(server, stubs, tiny, epo):
    running = server(tiny, "--max-concurrent-jobs", "1")
    first = create(running, stubs).id
    wait_for_steps(running, stubs, first, 20)
    second = create(running, stubs).id
    third = create(running, stubs).id
    urgent = create(running, stubs, priority=80).id
    jobs = {j.id: j for j in running.stub.ListJobs(stubs.service.ListJobsRequest(), timeout=30).jobs}
    assert [jobs[j].queue_position for j in (first, urgent, second, third)] == [0, 1, 2, 3]
    assert get(running, stubs, third).queue_position == 3
    start = jobs[second].estimated_start_time.ToNanoseconds()
    assert time.time_ns() < jobs[urgent].estimated_start_time.ToNanoseconds() < start
    assert not jobs[first].HasField("estimated_start_time")
    stream = watch(running, stubs, second)
    assert next(stream).created.queue_position == 2

    row = next(line for line in epo("list", server=running).stdout.splitlines() if line.startswith(third))
    assert "QUEUED" in row and " 3, in " in row
    shown = epo("get", third, server=running).stdout
    assert "place 3, to start 2" in shown and "priority     50" in shown
    epo("cancel", urgent, server=running)
    assert get(running, stubs, second).queue_position == 1
    epo("cancel", first, server=running)
    wait_for_steps(running, stubs, second, 1)
    assert get(running, stubs, second).queue_position == 0
    assert next(u for u in stream if u.HasField("step")).sequence == 1


def test_deadlines(server, stubs, tiny, epo):
    running = server(tiny, "--max-concurrent-jobs", "1")
    job = create(running, stubs, deadline=stamp(1.5)).id
    waiting = epo("submit", *SMALL, "--deadline", "2s", server=running)
    assert waiting.returncode == 0, waiting.stderr
    behind = create(running, stubs, iterations=3).id
    ended = list(watch(running, stubs, job))[-1].ended
    assert ended.state == stubs.job.Job.FAILED and ended.error.code == DEADLINE_EXCEEDED
    assert ended.completed_iterations >= 1
    assert len(history(running, stubs, job)) == ended.completed_iterations
    assert 0 <= ended.end_time.ToNanoseconds() - ended.spec.deadline.ToNanoseconds() < 5e9
    # A queued one, too; and who waits behind it has its turn.
    wait = epo("wait", waiting.stdout.strip(), server=running)
    assert wait.returncode == 1 and "deadline" in wait.stderr
    assert list(watch(running, stubs, behind))[-1].ended.state == stubs.job.Job.SUCCEEDED


def test_a_repeat_after_the_deadline_gets_the_first_job(server, stubs, tiny):
    running = server(tiny)
    spec = stubs.job.JobSpec(deadline=stamp(0.5), iterations=100_000, tokens=6, population=2, children_per_parent=4, top_k=16)
    spec.objective.neuron.layer = 2
    request = stubs.service.CreateJobRequest(spec=spec, request_id=str(uuid.uuid4()))
    job = running.stub.CreateJob(request, timeout=30)
    ended = list(watch(running, stubs, job.id))[-1].ended
    assert ended.error.code == DEADLINE_EXCEEDED
    assert running.stub.CreateJob(request, timeout=30) == ended
    request.request_id = str(uuid.uuid4())
    assert refused(running.stub.CreateJob, request).code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_repeat_is_not_judged_by_what_the_server_allows_now(server, stubs, tiny, tmp_path):
    running = server(tiny, state_dir=tmp_path / "state")
    spec = stubs.job.JobSpec(iterations=2, tokens=6, population=2, children_per_parent=4, top_k=16)
    spec.objective.neuron.layer = 2
    request = stubs.service.CreateJobRequest(spec=spec, request_id=str(uuid.uuid4()))
    job = running.stub.CreateJob(request, timeout=30)
    ended = list(watch(running, stubs, job.id))[-1].ended
    sweep = stubs.service.CreateSweepRequest(request_id=str(uuid.uuid4()))
    sweep.spec.job.CopyFrom(spec)
    sweep.spec.job.ClearField("objective")
    sweep.spec.neurons.add(layer=2, first=0, last=1)
    many = running.stub.CreateSweep(sweep, timeout=30)
    running.stop()
    running = server(tiny, "--max-children", "4", "--max-sweep-jobs", "1", state_dir=tmp_path / "state")
    assert running.stub.CreateJob(request, timeout=30) == ended
    assert running.stub.CreateSweep(sweep, timeout=30).id == many.id
    request.spec.seed = 1
    assert refused(running.stub.CreateJob, request).code() == grpc.StatusCode.ALREADY_EXISTS
    for fresh in (request, sweep):
        fresh.request_id = str(uuid.uuid4())
    assert refused(running.stub.CreateJob, request).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused(running.stub.CreateSweep, sweep).code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "flags, mentioned",
    [
        (["--deadline", "2001-01-01T00:00:00Z"], ["--deadline (spec.deadline)", "has passed"]),
        (["--deadline", "tomorrow"], ["--deadline", "'tomorrow'"]),
        (["--priority", "101"], ["--priority (spec.priority)", "is 101; give 0 to 100"]),
        (["--priority", "-1"], ["--priority (spec.priority)", "is -1"]),
        (["--history", "some"], ["--history"]),
    ],
)
def test_what_submit_refuses(module_server, root, epo, flags, mentioned):
    running = module_server.servers[0] if module_server.servers else module_server(root / "tests/parity/phi-tiny")
    result = epo("submit", *SMALL, *flags, server=running)
    assert result.returncode in (2, 67)
    (line, *_) = result.stderr.splitlines()
    assert all(part in line for part in mentioned), line


def test_a_time_that_is_none(module_server, root, stubs):
    running = module_server.servers[0] if module_server.servers else module_server(root / "tests/parity/phi-tiny")
    for bad in (timestamp_pb2.Timestamp(seconds=2**60), timestamp_pb2.Timestamp(seconds=2**31, nanos=-5)):
        with pytest.raises(grpc.RpcError) as caught:
            create(running, stubs, deadline=bad)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "spec.deadline" in caught.value.details()


def health(running):
    stub = health_pb2_grpc.HealthStub(running.channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status


def test_a_drain_ends_in_time_though_the_step_does_not(server, stubs, tiny):
    running = server(tiny, "--drain-timeout", "2s")
    small = create(running, stubs, iterations=4)
    expected = list(watch(running, stubs, small.id))[-1].ended
    job = create(running, stubs, **BIG).id
    wait_for(lambda: get(running, stubs, job).state == stubs.job.Job.RUNNING)
    stream = watch(running, stubs, job)
    next(stream)
    start = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: health(running) == health_pb2.HealthCheckResponse.NOT_SERVING, timeout=2)
    with pytest.raises(grpc.RpcError) as caught:
        create(running, stubs)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "RetryInfo" in error_details(caught.value)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "RetryInfo" in error_details(caught.value)
    assert running.process.wait(30) == 0
    assert time.monotonic() - start < 10, "not anywhere near the drain timeout"
    # Nothing is lost, and what was not finished goes on.
    again = server(tiny, state_dir=running.state_dir)
    assert get(again, stubs, small.id) == expected
    wait_for(lambda: get(again, stubs, job).state == stubs.job.Job.RUNNING)


def test_drain_timeout_must_be_a_duration(server, tiny):
    for bad in ("soon", "-1s", "30"):
        running = server(tiny, "--drain-timeout", bad, wait=False)
        assert running.process.wait(30) == 2
        (line,) = running.log().splitlines()
        assert "--drain-timeout" in line and bad in line
