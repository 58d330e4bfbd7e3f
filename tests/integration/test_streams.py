"""Watches that last: slow readers, many of them, and the command line over a server's restarts."""

import asyncio
import json
import pathlib
import signal
import subprocess
import threading
import time

import grpc
import pytest

JOBS = 100
WATCHERS_A_JOB = 10


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def make_request(stubs, **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6, "iterations": 12, **fields}
    return stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=objective, **fields))


def create(running, stubs, **fields):
    return running.stub.CreateJob(make_request(stubs, **fields), timeout=30).id


def watch(running, stubs, job_id, **fields):
    return running.stub.WatchJob(stubs.service.WatchJobRequest(id=job_id, **fields), timeout=120)


def resident_bytes(running):
    status = pathlib.Path(f"/proc/{running.process.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def test_latest_skips_what_a_slow_reader_has_no_time_for(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs, iterations=3000, population=24, children_per_parent=1)
    stream = watch(running, stubs, job, delivery=stubs.service.WatchJobRequest.LATEST)
    updates = [next(stream)]
    assert updates[0].HasField("created")
    # More steps than the transport buffers.
    while running.stub.GetJob(stubs.service.GetJobRequest(id=job)).state != stubs.job.Job.SUCCEEDED:
        time.sleep(0.1)
    updates += list(stream)
    sequences = [u.sequence for u in updates[1:] if u.sequence]
    assert sequences == sorted(set(sequences))
    assert sequences[-1] == 3001 and updates[-1].HasField("ended")
    assert len(sequences) < 3001
    # The last step is not among the skipped ones.
    assert sequences[-2] == 3000
    # A watch of an ended job: its last step and its end.
    late = list(watch(running, stubs, job, delivery=stubs.service.WatchJobRequest.LATEST))
    assert [u.sequence for u in late] == [0, 3000, 3001]
    # Every step is there for who asks for it.
    assert [u.sequence for u in watch(running, stubs, job)] == list(range(3002))


def test_no_such_delivery(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs)
    with pytest.raises(grpc.RpcError) as caught:
        list(watch(running, stubs, job, delivery=7))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "delivery" in caught.value.details()


def test_latest_on_the_command_line(server, stubs, tiny, epo):
    running = server(tiny)
    job = create(running, stubs, iterations=30)
    assert list(watch(running, stubs, job))[-1].HasField("ended")
    lines = [json.loads(line) for line in epo("watch", job, "--latest", "-o", "jsonl", server=running).stdout.splitlines()]
    assert [line["sequence"] for line in lines] == [30, 31]


@pytest.mark.release
def test_a_thousand_watchers_of_a_hundred_jobs(server, stubs, tiny):
    """Each gets every step of its job in order, though one reader never reads; the server's memory stays bounded."""
    running = server(tiny, "--max-concurrent-jobs", str(JOBS + 1))
    # Steps of this one are large, and its watcher reads nothing but the first message.
    big = create(running, stubs, iterations=100_000, population=32, children_per_parent=1, tokens=12)
    with grpc.insecure_channel(running.address) as lazy_channel:
        lazy = stubs.grpc.EpoServiceStub(lazy_channel).WatchJob(stubs.service.WatchJobRequest(id=big))
        assert next(lazy).HasField("created")
        seen = asyncio.run(watch_all(running, stubs))
        after = resident_bytes(running)
        expected = list(range(14))
        assert len(seen.sequences) == JOBS * WATCHERS_A_JOB
        assert all(sequences == expected for sequences in seen.sequences)
        assert after - seen.bytes_before < 128 << 20
        # The lazy one has cost nothing and lost nothing.
        running.stub.CancelJob(stubs.service.CancelJobRequest(id=big), timeout=60)
        steps = running.stub.GetJob(stubs.service.GetJobRequest(id=big)).completed_iterations
        assert [u.sequence for u in lazy if u.sequence] == list(range(1, steps + 2))


class Seen:
    def __init__(self):
        self.sequences = []
        self.bytes_before = 0


async def watch_all(running, stubs):
    seen = Seen()
    # A connection carries many watches; a hundred each is what a busy client has.
    channels = [grpc.aio.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
    apis = [stubs.grpc.EpoServiceStub(channel) for channel in channels]
    ids = [(await apis[0].CreateJob(make_request(stubs, seed=i))).id for i in range(JOBS)]
    begun = asyncio.Semaphore(0)

    async def follow(api, job_id):
        sequences = []
        async for update in api.WatchJob(stubs.service.WatchJobRequest(id=job_id), timeout=120):
            if update.HasField("created"):
                begun.release()
            if update.HasField("heartbeat"):
                continue
            sequences.append(update.sequence)
        return sequences

    tasks = [asyncio.create_task(follow(apis[k], job_id)) for job_id in ids for k in range(WATCHERS_A_JOB)]
    for _ in tasks:
        await begun.acquire()
    seen.bytes_before = resident_bytes(running)
    seen.sequences = await asyncio.gather(*tasks)
    for channel in channels:
        await channel.close()
    return seen


def test_the_command_line_outlives_restarts(server, stubs, tiny, bin_dir):
    """SIGTERM, then SIGKILL, each with a restart on the same port and state: every step once, though the watcher never left."""
    running = server(tiny)
    port = int(running.address.rsplit(":", 1)[1])
    job = create(running, stubs, iterations=300)
    command = [bin_dir / "epo", "watch", job, "-o", "jsonl", "--server", running.address]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lines = []
        for end in (signal.SIGTERM, signal.SIGKILL):
            lines += [json.loads(process.stdout.readline()) for _ in range(20)]
            running.stop(end)
            time.sleep(0.5)
            running = server(tiny, state_dir=running.state_dir, port=port)
        errors = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        reader.start()
        lines += [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 0
        reader.join()
    assert [line["sequence"] for line in lines] == list(range(1, 302))
    assert errors[0].count("connection lost, trying again") == 2
    assert errors[0].count("connected again") == 2
