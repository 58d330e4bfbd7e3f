"""Disks that are full or fail, under a real server and its SQLite files: jobs wait, the server says so, and nothing is lost."""

import subprocess
import time

import grpc
import pytest

ITERATIONS = 300


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class FailingDisk:
    """Every disk under a server whose writes, or syncs, fail with EIO."""

    def __init__(self, folder, root, operation):
        self._switch = folder / operation
        folder.mkdir()
        library = folder / "failing_disk.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, root / "tests/faults/failing_disk.c"], check=True)
        self.prefix = ["env", f"LD_PRELOAD={library}", f"FAILING_DISK={folder}"]
        self.state_dir = folder / "state"
        self.error = "disk I/O error"

    def fail(self):
        self._switch.touch()

    def mend(self):
        self._switch.unlink()

    def close(self):
        pass


class SmallDisk:
    """A file system of 16 MiB, in a mount namespace of its own."""

    def __init__(self, folder):
        folder.mkdir()
        # Without privileges, as the root of a user namespace.
        for self._namespaces in (["--mount"], ["--user", "--map-root-user", "--mount"]):
            script = 'mount -t tmpfs -o size=16m none "$0" && echo mounted && exec sleep infinity'
            command = ["unshare", *self._namespaces, "--propagation", "private", "sh", "-c", script, folder]
            self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            if self._holder.stdout.readline() == "mounted\n":
                break
            self.close()
        else:
            pytest.skip("may not mount a file system")
        enter = [name for name in ("--user", "--mount") if name in self._namespaces]
        self.prefix = ["nsenter", "--target", str(self._holder.pid), *enter, "--preserve-credentials", "--"]
        self.state_dir = folder / "state"
        self._filler = f"/proc/{self._holder.pid}/root{folder}/filler"
        self.error = "database or disk is full"

    def fail(self):
        with open(self._filler, "ab", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(4096))

    def mend(self):
        subprocess.run(["rm", self._filler], check=True)

    def close(self):
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()


@pytest.fixture(params=["write", "sync", "full"])
def disk(request, tmp_path, root):
    made = SmallDisk(tmp_path / "disk") if request.param == "full" else FailingDisk(tmp_path / "disk", root, request.param)
    yield made
    made.close()


@pytest.fixture
def start(server, tiny, disk):
    """Starts a server on the disk."""
    return lambda: server(tiny, "--min-free-bytes", "0", dtype="float64", prefix=disk.prefix, state_dir=disk.state_dir)


@pytest.fixture(scope="module")
def expected(module_server, jobs, tiny):
    """An uninterrupted run's history."""
    running = module_server(tiny, dtype="float64")
    job_id = jobs.create(running, iterations=ITERATIONS)
    assert jobs.end(running, job_id).state == jobs.states.SUCCEEDED
    history = jobs.history(running, job_id)
    running.stop()
    return history


def refuses(running, jobs):
    with pytest.raises(grpc.RpcError) as caught:
        jobs.create(running)
    return caught.value.code() == grpc.StatusCode.UNAVAILABLE


def ends_without_blame(running, jobs, job_id, expected):
    job = jobs.end(running, job_id)
    assert job.state == jobs.states.SUCCEEDED
    assert job.crashes == 0
    assert jobs.history(running, job_id) == expected


def test_a_disk_that_fails_while_a_job_runs(start, disk, jobs, metric, store_serving, expected):
    running = start()
    job_id = jobs.create(running, iterations=ITERATIONS)
    assert store_serving(running)
    jobs.wait_for_step(running, job_id, 5)
    disk.fail()
    wait_for(lambda: not store_serving(running))
    assert metric(running, "epo_store_refusing_writes") == 1
    (line,) = [line for line in running.log().splitlines() if "the store refused a write" in line]
    assert disk.error in line and "epo.db" in line
    assert refuses(running, jobs)
    # All that was acknowledged can be read.
    waiting = jobs.get(running, job_id)
    assert waiting.state == jobs.states.RUNNING
    history = jobs.history(running, job_id)
    assert len(history) == waiting.completed_iterations >= 5
    assert history == expected[: len(history)]
    disk.mend()
    assert jobs.end(running, job_id).state == jobs.states.SUCCEEDED
    assert jobs.history(running, job_id) == expected
    wait_for(lambda: store_serving(running))
    assert metric(running, "epo_store_refusing_writes") == 0
    assert "the store takes writes again" in running.log()
    assert jobs.end(running, jobs.create(running)).state == jobs.states.SUCCEEDED


def test_a_disk_that_fails_beside_no_job(start, disk, jobs, metric, store_serving):
    running = start()
    disk.fail()
    assert refuses(running, jobs)
    wait_for(lambda: not store_serving(running))
    assert metric(running, "epo_store_refusing_writes") == 1
    (line,) = [line for line in running.log().splitlines() if "the store refused a write" in line]
    assert disk.error in line and "epo.db" in line
    disk.mend()
    wait_for(lambda: store_serving(running))
    assert metric(running, "epo_store_refusing_writes") == 0
    assert jobs.end(running, jobs.create(running)).state == jobs.states.SUCCEEDED


def test_a_stop_on_a_failing_disk_is_nobodys_fault(start, disk, jobs, store_serving, expected):
    running = start()
    job_id = jobs.create(running, iterations=ITERATIONS)
    jobs.wait_for_step(running, job_id, 5)
    disk.fail()
    wait_for(lambda: not store_serving(running))
    assert running.stop() == 0
    running = start()
    # The last step, refused since it could not be synced, may be found on the disk all the same.
    wait_for(lambda: not store_serving(running) or jobs.get(running, job_id).state == jobs.states.SUCCEEDED)
    running.kill()  # Before any step of its own.
    disk.mend()
    running = start()
    ends_without_blame(running, jobs, job_id, expected)


def test_a_round_that_never_began_is_nobodys_fault(start, disk, jobs, store_serving, expected):
    running = start()
    job_id = jobs.create(running, iterations=ITERATIONS)
    jobs.wait_for_step(running, job_id, 5)
    disk.fail()
    assert running.stop() == 0  # Steps need no sync: its log of writes is left for the next one to go on with.
    running = start()
    wait_for(lambda: not store_serving(running))
    running.kill()  # Before any step of its own, though the disk may have the note of one.
    disk.mend()
    running = start()
    ends_without_blame(running, jobs, job_id, expected)


def test_a_disk_that_fails_before_the_start(start, disk, jobs, metric, store_serving, expected):
    running = start()
    job_id = jobs.create(running, iterations=ITERATIONS)
    jobs.wait_for_step(running, job_id, 5)
    running.kill()
    disk.fail()
    running = start()
    wait_for(lambda: not store_serving(running))
    assert metric(running, "epo_ready") == 1
    assert metric(running, "epo_store_refusing_writes") == 1
    assert disk.error in next(line for line in running.log().splitlines() if "the store refused a write" in line)
    assert refuses(running, jobs)
    (listed,) = jobs.list(running)
    assert listed.id == job_id and not listed.HasField("error")
    history = jobs.history(running, job_id)
    assert history == expected[: len(history)] and len(history) >= 5
    disk.mend()
    assert jobs.end(running, job_id).state == jobs.states.SUCCEEDED
    assert jobs.history(running, job_id) == expected
    assert jobs.get(running, job_id).attempts == 2
    assert store_serving(running)
