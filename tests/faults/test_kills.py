"""kill -9: nothing acknowledged is lost, nothing is told twice, and a job that kills servers does not go on for ever."""

import json
import random
import signal
import subprocess
import threading
import time
import uuid

import grpc
import pytest
from google.rpc import error_details_pb2

KILLS = 50
JOBS = 10
# Long enough that each is killed several times.
ITERATIONS = 400
# Of kills in a job's steps: these are nobody's fault.
ANY = ("--max-attempts", "1000")
RECONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


class Client(threading.Thread):
    """Creates a job and follows it to its end, through every loss of the server."""

    def __init__(self, address, stubs, jobs, begin, **fields):
        super().__init__(daemon=True)
        self._stub = stubs.grpc.EpoServiceStub(grpc.insecure_channel(address, [*RECONNECT, ("grpc.use_local_subchannel_pool", 1)]))
        self._jobs = jobs
        self._begin = begin
        self._request = jobs.request(request_id=str(uuid.uuid4()), **fields)
        self.job_id = None
        self.acknowledged = threading.Event()
        self.sequences = []
        self.lost = 0
        self.ended = None

    def run(self):
        self._begin.wait()
        while self.job_id is None:
            try:
                self.job_id = self._stub.CreateJob(self._request, timeout=30).id
                self.acknowledged.set()
            except grpc.RpcError as error:
                self._again(error)
        while self.ended is None:
            try:
                for update in self._jobs.watch(self._stub, self.job_id, after=self.sequences[-1] if self.sequences else 0):
                    if update.sequence:
                        self.sequences.append(update.sequence)
                    if update.HasField("ended"):
                        self.ended = update.ended
            except grpc.RpcError as error:
                self._again(error)

    def _again(self, error):
        # Anything else ends the thread, and with it the test.
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise error
        self.lost += 1
        time.sleep(0.02)


def test_fifty_kills_over_ten_jobs(server, stubs, jobs, tiny, bin_dir, tmp_path):
    specs = [{"seed": seed, "iterations": ITERATIONS, "restart_period": 20} for seed in range(JOBS)]
    running = server(tiny, dtype="float64")
    uninterrupted = [jobs.create(running, **spec) for spec in specs]
    assert all(jobs.end(running, job_id).state == jobs.states.SUCCEEDED for job_id in uninterrupted)
    expected = [jobs.history(running, job_id) for job_id in uninterrupted]
    assert [len(history) for history in expected] == [ITERATIONS] * JOBS
    running.stop()

    chance = random.Random(5)
    running = server(tiny, *ANY, dtype="float64", wait=False)
    port = int(running.address.rsplit(":", 1)[1])
    clients = [Client(running.address, stubs, jobs, threading.Event(), **spec) for spec in specs]
    for client in clients:
        client.start()
    command = None
    for kill in range(KILLS):
        if kill % (KILLS // JOBS) == 0:
            clients[kill // (KILLS // JOBS)]._begin.set()
        # One in five before the server is up.
        if kill % 5 != 4:
            running.wait_serving()
        if kill == 1:
            clients[0].acknowledged.wait(60)
            watch = [bin_dir / "epo", "watch", clients[0].job_id, "-o", "jsonl", "--server", running.address]
            with open(tmp_path / "lines", "wb") as lines:
                command = subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=lines, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, 0.3))
        running.kill()
        running = server(tiny, *ANY, dtype="float64", state_dir=running.state_dir, port=port, wait=False)
    running.wait_serving()
    for client in clients:
        client.join(240)

    every_sequence = list(range(1, ITERATIONS + 2))
    crashes = attempts = 0
    for client, history in zip(clients, expected):
        assert client.ended is not None, f"job {client.job_id} did not end: {client.sequences[-3:]}"
        assert client.ended.state == jobs.states.SUCCEEDED
        assert client.sequences == every_sequence
        assert jobs.history(running, client.job_id) == history
        assert client.ended.evaluations == 36 * ITERATIONS
        crashes += client.ended.crashes
        attempts += client.ended.attempts
    # The kills did hit jobs at work, how many and which is up to the machine's speed; and watchers.
    assert crashes > KILLS // 5
    assert attempts > crashes
    assert sum(client.lost for client in clients) > KILLS
    assert len(jobs.list(running)) == JOBS
    assert command.wait(120) == 0
    assert [json.loads(line)["sequence"] for line in (tmp_path / "lines").read_text().splitlines()] == every_sequence


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_job_that_kills_servers_fails_alone(server, stubs, jobs, tiny):
    running = server(tiny)
    # A step of it takes long, so that the kill comes in the middle; it is too large to share a round.
    poison = jobs.create(running, population=64, children_per_parent=256, tokens=32, iterations=1000)
    others = [jobs.create(running, seed=seed, iterations=100_000) for seed in range(2)]
    state_dir = running.state_dir
    for attempt in range(1, 4):
        wait_for(lambda: f"job {poison} runs from iteration" in running.log())
        running.kill()
        running = server(tiny, state_dir=state_dir)
        job = jobs.get(running, poison)
        assert job.crashes == attempt
    assert job.attempts == 3
    assert job.state == jobs.states.FAILED
    assert "died 3 times" in job.error.message and "--max-attempts" in job.error.message
    assert job.error.code == grpc.StatusCode.ABORTED.value[0]
    info = error_details_pb2.ErrorInfo()
    assert job.error.details[0].Unpack(info)
    assert (info.reason, info.metadata["crashes"]) == ("MAX_ATTEMPTS_REACHED", "3")
    assert len(jobs.history(running, poison)) == job.completed_iterations
    # Whoever was there beside it goes on.
    for other in others:
        job = jobs.get(running, other)
        assert (job.crashes, job.error.code) == (0, 0)
        jobs.wait_for_step(running, other, job.completed_iterations + 3)


def test_jobs_that_shared_a_killed_round_finish_apart(server, jobs, tiny):
    running = server(tiny)
    state_dir = running.state_dir
    pair = [jobs.create(running, seed=seed, iterations=400) for seed in range(2)]
    for job_id in pair:
        jobs.wait_for_step(running, job_id, 2)
    running.kill()
    running = server(tiny, state_dir=state_dir)
    # Nobody can tell whose fault it was.
    assert [jobs.get(running, job_id).crashes for job_id in pair] == [1, 1]
    assert [jobs.end(running, job_id).state for job_id in pair] == [jobs.states.SUCCEEDED] * 2


@pytest.mark.parametrize(
    "flags, signals, gap",
    [
        ((), [signal.SIGTERM], 0),
        (("--drain-timeout", "0s"), [signal.SIGTERM], 0),
        ((), [signal.SIGTERM, signal.SIGTERM], 0.3),
        ((), [signal.SIGTERM, signal.SIGINT], 0),
        ((), [signal.SIGHUP], 0),
    ],
    ids=["drain", "timeout", "at_once", "together", "hangup"],
)
def test_a_stop_that_was_asked_for_is_no_crash(server, jobs, tiny, flags, signals, gap):
    running = server(tiny, *flags)
    # A step of it takes long, and is dropped by all but the drain.
    job_id = jobs.create(running, population=64, children_per_parent=256, tokens=32, iterations=1000)
    wait_for(lambda: f"job {job_id} runs from iteration" in running.log())
    for each in signals:
        running.process.send_signal(each)
        time.sleep(gap)
    # Of two that come together, the system chooses which is the second.
    assert running.process.wait(60) in ({0} if len(signals) == 1 else {128 + each for each in signals})
    running = server(tiny, "--max-attempts", "1", state_dir=running.state_dir)
    job = jobs.get(running, job_id)
    assert (job.crashes, job.error.code) == (0, 0)
    assert job.attempts >= 1
