"""Lets a server work for minutes under jobs and watchers that come and go, and sees that its memory and descriptors stay as they were.

    .venv/bin/python bench/soak.py [--minutes 10] [--jobs 50] [--watchers 40] [--model tests/parity/phi-tiny]

So many jobs are alive at any time: one that ends is followed by a new one; some are paused and resumed, some cancelled. So many watchers
follow random ones, in every way a client can: all steps or the latest, from the start or the middle, history too; slowly, on connections
of their own or a shared one, some killed in the middle. The first fifth of the time, at most two minutes, is for warming up. Prints a
table; exits with 1 if the resident memory moved by more than 5 %, or descriptors are left over once all watchers have gone.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conftest import ServerFactory, make_stubs  # noqa: E402

MOST_GROWTH = 0.05
# Connections of the store's readers: never more than there are threads that read, with a database and a log each.
FILES_TO_SPARE = 12
SAMPLE_SECONDS = 2
WINDOWS = 4


ESTABLISHED = "01"


class Process:
    """A server on a TCP port."""

    def __init__(self, pid, port):
        self._proc = pathlib.Path(f"/proc/{pid}")
        self._port = f":{port:04X}"

    def status(self, key):
        lines = (self._proc / "status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))

    def resident_mib(self):
        return self.status("VmRSS") / 1024

    def descriptors(self):
        """How many are sockets, and how many are others. A connection that a client holds does not count: grpc.aio holds some for
        as long as it lives, whatever is closed."""
        targets = []
        for descriptor in (self._proc / "fd").iterdir():
            # It may have been closed since.
            with contextlib.suppress(FileNotFoundError):
                targets.append(os.readlink(descriptor))
        sockets = sum(target.startswith("socket:") for target in targets)
        ends = [line.split()[2:4] for name in ("tcp", "tcp6") for line in (self._proc / "net" / name).read_text().splitlines()]
        held = sum(remote.endswith(self._port) and state == ESTABLISHED for remote, state in ends)
        return sockets - held, len(targets) - sockets


class Soak:
    def __init__(self, stubs, bin_dir, address, chance):
        self._stubs = stubs
        self._bin_dir = bin_dir
        self._address = address
        self._chance = chance
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = stubs.grpc.EpoServiceStub(self._channel)
        self._live = []
        self.ended = 0
        self.watches = 0
        self.updates = 0

    def _request(self):
        objective = self._stubs.objective.Objective(neuron=self._stubs.objective.NeuronObjective(layer=2, neuron=self._chance.randrange(8)))
        spec = self._stubs.job.JobSpec(
            objective=objective, population=self._chance.choice([2, 4, 8]), children_per_parent=8, top_k=16,
            tokens=self._chance.choice([4, 6, 12]), iterations=self._chance.randrange(50, 1500), seed=self._chance.randrange(1 << 30),
            priority=self._chance.choice([40, 50, 60]), history=self._chance.choice([self._stubs.job.FULL, self._stubs.job.FRONTIER]),
        )
        return self._stubs.service.CreateJobRequest(spec=spec)

    async def keep_a_job(self):
        """One job after another."""
        service = self._stubs.service
        while True:
            job_id = (await self._stub.CreateJob(self._request())).id
            self._live.append(job_id)
            fate = self._chance.random()
            # A job's end may come first.
            with contextlib.suppress(grpc.aio.AioRpcError):
                if fate < 0.2:
                    await asyncio.sleep(self._chance.uniform(0, 20))
                    await self._stub.CancelJob(service.CancelJobRequest(id=job_id))
                elif fate < 0.4:
                    await asyncio.sleep(self._chance.uniform(0, 10))
                    await self._stub.PauseJob(service.PauseJobRequest(id=job_id))
                    await asyncio.sleep(self._chance.uniform(0, 5))
                    await self._stub.ResumeJob(service.ResumeJobRequest(id=job_id))
            async for _ in self._stub.WatchJob(service.WatchJobRequest(id=job_id, delivery=service.WatchJobRequest.LATEST)):
                pass
            self._live.remove(job_id)
            self.ended += 1

    async def keep_watching(self):
        """One watch after another, each on a random job."""
        while True:
            if not self._live:
                await asyncio.sleep(0.1)
                continue
            kind = self._chance.random()
            if kind < 0.1:
                await self._watch_and_crash()
                continue
            if kind < 0.5:
                await self._watch(self._stub)
                continue
            async with grpc.aio.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                await self._watch(self._stubs.grpc.EpoServiceStub(channel))

    async def _watch(self, stub):
        service, chance = self._stubs.service, self._chance
        job_id = chance.choice(self._live)
        if chance.random() < 0.1:
            stream = stub.GetHistory(service.GetHistoryRequest(id=job_id))
        else:
            delivery = chance.choice([service.WatchJobRequest.EVERY, service.WatchJobRequest.LATEST])
            stream = stub.WatchJob(service.WatchJobRequest(id=job_id, after_sequence=chance.randrange(200), delivery=delivery))
        self.watches += 1
        left = chance.randrange(1, 400)
        slow = chance.random() < 0.2
        async for _ in stream:
            self.updates += 1
            left -= 1
            if left <= 0:
                break
            if slow:
                await asyncio.sleep(chance.uniform(0, 0.2))
        stream.cancel()

    async def _watch_and_crash(self):
        """The command line, until it is killed."""
        command = [self._bin_dir / "epo", "watch", self._chance.choice(self._live), "-o", "jsonl", "--server", self._address]
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
        self.watches += 1
        try:
            await asyncio.sleep(self._chance.uniform(0, 3))
        finally:
            # It may have seen the job's end.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @contextlib.asynccontextmanager
    async def watchers(self, count):
        tasks = [asyncio.create_task(self.keep_watching()) for _ in range(count)]
        yield
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                raise result


async def quiet_descriptors(process):
    """Process.descriptors() once connections that were closed are gone."""
    counts = []
    for _ in range(20):
        await asyncio.sleep(0.5)
        counts.append(process.descriptors())
    return tuple(map(min, zip(*counts)))


async def run(options, stubs, bin_dir, server):
    process = Process(server.process.pid, int(server.address.rsplit(":", 1)[1]))
    soak = Soak(stubs, bin_dir, server.address, random.Random(options.seed))
    slots = [asyncio.create_task(soak.keep_a_job()) for _ in range(options.jobs)]
    seconds = 60 * options.minutes
    start = time.monotonic()
    print(f"{'s':>6} {'RSS MiB':>8} {'fds':>5} {'threads':>7} {'ended':>6} {'watches':>8} {'updates':>9}", flush=True)

    async def watch_for(duration, samples):
        async with soak.watchers(options.watchers):
            end = time.monotonic() + duration
            row = 0
            while time.monotonic() < end:
                await asyncio.sleep(SAMPLE_SECONDS)
                for slot in slots:
                    if slot.done():
                        slot.result()
                samples.append(process.resident_mib())
                if time.monotonic() >= row:
                    row = time.monotonic() + seconds / 20
                    print(f"{time.monotonic() - start:6.0f} {samples[-1]:8.1f} {sum(process.descriptors()):5} {process.status('Threads'):7} "
                          f"{soak.ended:6} {soak.watches:8} {soak.updates:9}", flush=True)

    warm_up = min(seconds / 5, 120)
    await watch_for(warm_up, [])
    sockets_before, files_before = await quiet_descriptors(process)
    samples = []
    await watch_for(seconds - warm_up, samples)
    sockets_after, files_after = await quiet_descriptors(process)
    for slot in slots:
        slot.cancel()

    width = max(1, len(samples) // WINDOWS)
    medians = [statistics.median(samples[i * width : (i + 1) * width]) for i in range(WINDOWS)]
    moved = (max(medians) - min(medians)) / medians[0]
    print("RSS MiB, medians of quarters after warming up: " + ", ".join(f"{m:.1f}" for m in medians) + f"; moved by {100 * moved:.1f} %")
    print(f"descriptors without watchers: {sockets_before} sockets and {files_before} others after warming up, "
          f"{sockets_after} and {files_after} at the end")
    failed = []
    if moved > MOST_GROWTH:
        failed.append(f"the resident memory moved by more than {100 * MOST_GROWTH:.0f} %")
    if sockets_after > sockets_before or files_after > files_before + FILES_TO_SPARE:
        failed.append("descriptors are left over")
    print("FAILED: " + "; ".join(failed) if failed else "passed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--watchers", type=int, default=40)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "tests/parity/phi-tiny")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bin_dir = pathlib.Path(os.environ.get("EPO_BIN_DIR", ROOT / "build/release/bin"))
    with tempfile.TemporaryDirectory() as folder:
        stubs_dir = pathlib.Path(folder) / "stubs"
        stubs_dir.mkdir()
        stubs = make_stubs(stubs_dir)
        servers = ServerFactory(bin_dir, stubs, pathlib.Path(folder))
        try:
            # What has ended is deleted after a minute, so that deletions go on, too.
            return asyncio.run(run(options, stubs, bin_dir, servers(options.model, "--retention", "60s", "--min-free-bytes", "0")))
        finally:
            servers.close()


if __name__ == "__main__":
    sys.exit(main())
