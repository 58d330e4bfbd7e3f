"""How a real server shares the model between jobs, and what outlives its process."""

import signal
import socket
import subprocess
import time

import grpc
import pytest
from google.rpc import status_pb2


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def create(running, stubs, **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6, "iterations": 20, **fields}
    return running.stub.CreateJob(stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=objective, **fields)))


def watch(running, stubs, job_id, after=0, timeout=240):
    return running.stub.WatchJob(stubs.service.WatchJobRequest(id=job_id, after_sequence=after), timeout=timeout)


def get(running, stubs, job_id):
    return running.stub.GetJob(stubs.service.GetJobRequest(id=job_id))


def history(running, stubs, job_id):
    return list(running.stub.GetHistory(stubs.service.GetHistoryRequest(id=job_id)))


def wait_for_step(running, stubs, job_id, sequence):
    stream = watch(running, stubs, job_id)
    for update in stream:
        if update.sequence >= sequence:
            stream.cancel()
            return
    raise AssertionError("the stream ended early")


def test_eight_jobs_advance_together(server, stubs, tiny):
    running = server(tiny)
    jobs = [create(running, stubs, iterations=100_000, seed=seed).id for seed in range(8)]
    big = create(running, stubs, iterations=100_000, population=8, children_per_parent=128, tokens=12).id
    for job_id in jobs + [big]:
        wait_for_step(running, stubs, job_id, 3)
    steps = [get(running, stubs, job_id).completed_iterations for job_id in jobs]
    # Equal jobs are a round apart at most, give or take what ran between the eight calls.
    assert max(steps) - min(steps) <= 0.2 * max(steps) + 3
    # Shares are equal in evaluations: a step of the big job takes 103 times those of a small one.
    assert get(running, stubs, big).completed_iterations < min(steps)
    for job_id in jobs + [big]:
        assert get(running, stubs, job_id).state == stubs.job.Job.RUNNING
        running.stub.CancelJob.future(stubs.service.CancelJobRequest(id=job_id))


def test_a_short_job_overtakes_a_long_one(server, stubs, tiny):
    running = server(tiny)
    long_job = create(running, stubs, iterations=100_000, population=8, children_per_parent=32).id
    wait_for_step(running, stubs, long_job, 2)
    short = create(running, stubs, iterations=5).id
    assert list(watch(running, stubs, short))[-1].ended.state == stubs.job.Job.SUCCEEDED
    assert get(running, stubs, long_job).state == stubs.job.Job.RUNNING


def test_score_is_served_between_rounds(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs, iterations=100_000)
    wait_for_step(running, stubs, job.id, 1)
    request = stubs.service.ScoreRequest(objective=job.spec.objective)
    request.prompts.add(text="hello there")
    assert len(running.stub.Score(request, timeout=60).scores) == 1
    assert get(running, stubs, job.id).state == stubs.job.Job.RUNNING


def test_drain_and_restart(server, stubs, tiny):
    first = server(tiny, dtype="float64")
    alone = create(first, stubs, iterations=60, seed=3).id
    assert list(watch(first, stubs, alone))[-1].ended.state == stubs.job.Job.SUCCEEDED
    expected = history(first, stubs, alone)

    job = create(first, stubs, iterations=60, seed=3).id
    stream = watch(first, stubs, job)
    seen = []
    with pytest.raises(grpc.RpcError) as caught:
        for update in stream:
            seen.append(update.sequence)
            if update.sequence == 5:
                first.process.send_signal(signal.SIGINT)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    blob = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    types = [d.TypeName() for d in status_pb2.Status.FromString(blob).details]
    assert "google.rpc.RetryInfo" in types
    assert first.process.wait(30) == 0
    assert "stopped" in first.log()

    second = server(tiny, dtype="float64", state_dir=first.state_dir)
    rest = [u for u in watch(second, stubs, job, after=seen[-1])]
    assert seen + [u.sequence for u in rest[1:]] == list(range(62))
    assert rest[-1].ended.state == stubs.job.Job.SUCCEEDED
    assert rest[-1].ended.evaluations == 600
    assert history(second, stubs, job) == expected


def test_kill_and_restart(server, stubs, tiny):
    # Each kill may come while the job is at work.
    first = server(tiny, "--max-attempts", "10", dtype="float64")
    alone = create(first, stubs, iterations=60, seed=4).id
    assert list(watch(first, stubs, alone))[-1].ended.state == stubs.job.Job.SUCCEEDED
    expected = history(first, stubs, alone)
    job = create(first, stubs, iterations=60, seed=4).id
    running, after = first, 0
    for stop_at in (3, 11, 30):
        for update in watch(running, stubs, job, after=after):
            if update.WhichOneof("update") != "step":
                continue
            assert update.sequence == after + 1
            after = update.sequence
            if after >= stop_at:
                break
        running.kill()
        running = server(tiny, "--max-attempts", "10", dtype="float64", state_dir=first.state_dir)
    assert [u.sequence for u in watch(running, stubs, job, after=after)] == [0, *range(after + 1, 62)]
    assert history(running, stubs, job) == expected
    assert history(running, stubs, alone) == expected


def test_a_job_waits_for_its_model(server, stubs, tiny, root, epo):
    first = server(tiny, dtype="float64")
    alone, job, other, paused = (create(first, stubs, iterations=n, seed=3).id for n in (1000, 1000, 100_000, 100_000))
    assert list(watch(first, stubs, alone))[-1].ended.state == stubs.job.Job.SUCCEEDED
    first.stub.PauseJob(stubs.service.PauseJobRequest(id=paused))
    expected = history(first, stubs, alone)
    fingerprint = get(first, stubs, job).model_fingerprint
    assert first.stop() == 0

    second = server(root / "tests/parity/llama-tiny", state_dir=first.state_dir)
    own = create(second, stubs).id
    assert list(watch(second, stubs, own))[-1].ended.state == stubs.job.Job.SUCCEEDED
    for job_id, state in ((other, stubs.job.Job.QUEUED), (paused, stubs.job.Job.PAUSED)):
        waiting = get(second, stubs, job_id)
        assert waiting.state == state and not waiting.HasField("error")
        assert fingerprint in waiting.waits_for and "llama-tiny" in waiting.waits_for
        assert waiting.queue_position == 0 and not waiting.HasField("estimated_start_time")
        assert waiting in list(second.stub.ListJobs(stubs.service.ListJobsRequest()).jobs)
        assert len(history(second, stubs, job_id)) == waiting.completed_iterations
    assert get(second, stubs, own).waits_for == ""
    # A watch tells what it waits for.
    stream = watch(second, stubs, other, after=get(second, stubs, other).completed_iterations)
    assert next(stream).created.waits_for == get(second, stubs, other).waits_for
    shown = epo("get", other, server=second).stdout
    assert "waits for" in shown and fingerprint in shown
    assert "held" in next(line for line in epo("list", server=second).stdout.splitlines() if other in line)
    # It can be paused, cancelled and deleted there.
    assert second.stub.PauseJob(stubs.service.PauseJobRequest(id=other)).state == stubs.job.Job.PAUSED
    assert second.stub.ResumeJob(stubs.service.ResumeJobRequest(id=paused)).state == stubs.job.Job.QUEUED
    assert second.stub.CancelJob(stubs.service.CancelJobRequest(id=other)).state == stubs.job.Job.CANCELLED
    assert next(update for update in stream if update.HasField("ended")).ended.state == stubs.job.Job.CANCELLED
    second.stub.DeleteJob(stubs.service.DeleteJobRequest(id=other))
    done = get(second, stubs, job).completed_iterations
    assert second.stop() == 0

    third = server(tiny, dtype="float64", state_dir=first.state_dir)
    assert [u.sequence for u in watch(third, stubs, job, after=done)][-1] == 1001
    assert get(third, stubs, job).waits_for == ""
    assert history(third, stubs, job) == expected
    wait_for_step(third, stubs, paused, get(third, stubs, paused).completed_iterations + 2)


def test_second_signal_stops_at_once(server, stubs, tiny):
    running = server(tiny)
    # A step that takes long.
    job = create(running, stubs, iterations=100_000, population=64, children_per_parent=256, tokens=32).id
    while get(running, stubs, job).state != stubs.job.Job.RUNNING:
        time.sleep(0.05)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 128 + signal.SIGTERM


def failing_start(server, *args, **kwargs):
    """Starts a server that must exit by itself; returns its exit code and the log's last line."""
    running = server(*args, wait=False, **kwargs)
    code = running.process.wait(60)
    return code, running.log().splitlines()[-1]


def test_port_in_use(server, tiny):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = failing_start(server, tiny, port=port)
    assert code == 1
    assert f"127.0.0.1:{port}" in line and "Address already in use" in line


def test_two_servers_on_one_address(server, tiny):
    running = server(tiny)
    port = int(running.address.rsplit(":", 1)[1])
    code, line = failing_start(server, tiny, port=port)
    assert code == 1 and "Address already in use" in line


def test_state_directory_that_cannot_be_written(server, tiny):
    code, line = failing_start(server, tiny, state_dir="/proc/epo-state")
    assert code == 1 and "/proc/epo-state" in line


def test_state_directory_of_a_running_server(server, tiny):
    running = server(tiny)
    code, line = failing_start(server, tiny, state_dir=running.state_dir)
    assert code == 1 and str(running.state_dir) in line


def test_model_directory_without_a_model(server, tmp_path):
    (tmp_path / "empty").mkdir()
    code, line = failing_start(server, tmp_path / "empty")
    assert code == 1 and str(tmp_path / "empty" / "config.json") in line


@pytest.mark.parametrize(
    "flags, mentioned",
    [(["--listen", "nonsense"], "--listen"), (["--dtype", "int8"], "--dtype"), (["--frobnicate"], "--frobnicate")],
)
def test_usage_errors(server, tiny, flags, mentioned):
    running = server(tiny, *flags, wait=False)
    assert running.process.wait(30) == 2
    (line,) = running.log().splitlines()
    assert mentioned in line


def test_port_zero_is_logged(bin_dir, tiny, tmp_path, stubs):
    command = [bin_dir / "epo-server", "--model", tiny, "--listen", "127.0.0.1:0", "--metrics-listen", "off", "--state-dir", tmp_path / "s"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = next(line.rsplit(" ", 1)[1].strip() for line in process.stderr if "listening on" in line)
        with grpc.insecure_channel(address) as channel:
            stub = stubs.grpc.EpoServiceStub(channel)
            assert stub.GetServerInfo(stubs.service.GetServerInfoRequest(), timeout=10).model.name == "phi-tiny"
    finally:
        process.terminate()
        assert process.wait(30) == 0
