"""Clients that crash, never read, send garbage or only hold connections: the others are served as before."""

import json
import os
import random
import signal
import socket
import subprocess
import time

import grpc
import pytest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def connect(running):
    host, port = running.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    length = len(payload) if length is None else length
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4)
GARBAGE = {
    "random bytes": lambda chance: chance.randbytes(4096),
    "zeros": lambda chance: bytes(65536),
    "an HTTP/1 request": lambda chance: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS greeting": lambda chance: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),
    "random bytes after the preface": lambda chance: PREFACE + chance.randbytes(65536),
    "a frame that is too large": lambda chance: PREFACE + SETTINGS + frame(0, stream=1, length=0xFFFFFF) + chance.randbytes(4096),
    "headers that are none": lambda chance: PREFACE + SETTINGS + frame(1, 4, 1, chance.randbytes(200)),
    "data of no stream": lambda chance: PREFACE + SETTINGS + frame(0, 1, 7, b"\0\0\0\0\1x"),
    "settings without end": lambda chance: PREFACE + SETTINGS * 20_000,
    "pings without end": lambda chance: PREFACE + SETTINGS + frame(6, payload=bytes(8)) * 20_000,
    "resets of what was never opened": lambda chance: PREFACE + SETTINGS + b"".join(frame(3, 0, i, bytes(4)) for i in range(1, 4000, 2)),
    "half a preface": lambda chance: PREFACE[:11],
}


def send_until_closed(connection, data):
    """Sends all of `data`, as far as the server takes it, and reads what it answers."""
    connection.settimeout(0.5)
    try:
        connection.sendall(data)
        while connection.recv(65536):
            pass
    except OSError:
        pass


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_garbage_harms_nobody(server, jobs, tiny, descriptors):
    running = server(tiny)
    job_id = jobs.create(running, iterations=1_000_000)
    before = descriptors(running)
    chance = random.Random(11)
    for name, make in GARBAGE.items():
        for _ in range(3):
            with connect(running) as connection:
                send_until_closed(connection, make(chance))
        assert running.process.poll() is None, name
        done = jobs.get(running, job_id).completed_iterations
        jobs.wait_for_step(running, job_id, done + 2)
    wait_for(lambda: descriptors(running) <= before)


@pytest.mark.parametrize(
    "message", [b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", bytes(3_000_000), b"\x0a\x02\x08" * 1000],
    ids=["ones", "length", "zeros", "truncated"],
)
def test_a_message_that_is_none_is_refused(server, jobs, tiny, message):
    running = server(tiny)
    for method in ("CreateJob", "GetJob", "Score"):
        call = running.channel.unary_unary(f"/epo.v1.EpoService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=30)
        # gRPC's own answer to bytes that cannot be parsed; the service never sees them.
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert jobs.end(running, jobs.create(running)).state == jobs.states.SUCCEEDED


def test_stalled_connections_keep_nobody_waiting(server, jobs, tiny, descriptors):
    running = server(tiny)
    job_id = jobs.create(running, iterations=1_000_000)
    jobs.wait_for_step(running, job_id, 1)
    before = descriptors(running)
    # Silent from the start, in the middle of the preface, after it, and in the middle of a frame.
    beginnings = [b"", PREFACE[:7], PREFACE + SETTINGS, PREFACE + SETTINGS + frame(1, 4, 1, length=1000)]
    stalled = []
    for number in range(200):
        connection = connect(running)
        connection.sendall(beginnings[number % len(beginnings)])
        stalled.append(connection)
    wait_for(lambda: descriptors(running) >= before + 200)
    for _ in range(20):
        with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
    assert jobs.end(running, jobs.create(running)).state == jobs.states.SUCCEEDED
    done = jobs.get(running, job_id).completed_iterations
    jobs.wait_for_step(running, job_id, done + 5)
    for connection in stalled:
        connection.close()
    wait_for(lambda: descriptors(running) <= before)


def test_clients_that_crash_leave_nothing_behind(server, jobs, tiny, bin_dir, metric, descriptors):
    running = server(tiny)
    job_id = jobs.create(running, iterations=1_000_000)
    jobs.wait_for_step(running, job_id, 1)
    before = descriptors(running)
    watchers = [
        subprocess.Popen([bin_dir / "epo", "watch", job_id, "-o", "jsonl", "--server", running.address], stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    for watcher in watchers:
        assert watcher.stdout.readline()
    watching = 'epo_rpcs_in_flight{method="WatchJob"}'
    assert metric(running, watching) == 8
    for watcher in watchers:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()
    wait_for(lambda: metric(running, watching) == 0)
    wait_for(lambda: descriptors(running) <= before)
    done = jobs.get(running, job_id).completed_iterations
    jobs.wait_for_step(running, job_id, done + 5)


def resident_bytes(running):
    with open(f"/proc/{running.process.pid}/status") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmRSS:")))


@pytest.mark.release
def test_clients_that_stopped_read_nothing_and_cost_little(server, jobs, tiny, bin_dir, tmp_path):
    running = server(tiny)
    job_id = jobs.create(running, population=48, children_per_parent=1, iterations=2000)
    command = [bin_dir / "epo", "watch", job_id, "-o", "jsonl", "--server", running.address]
    outputs = [tmp_path / f"lines-{i}" for i in range(10)]
    clients = []
    try:
        for output in outputs:
            with open(output, "wb") as lines:
                clients.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=lines, stderr=subprocess.DEVNULL))
        for client, output in zip(clients, outputs):
            wait_for(lambda: output.stat().st_size > 0)
            os.kill(client.pid, signal.SIGSTOP)
        before = resident_bytes(running)
        updates = [u for u in jobs.watch(running.stub, job_id, timeout=300) if u.sequence]
        assert [u.sequence for u in updates] == list(range(1, 2002))
        unread = len(clients) * sum(u.ByteSize() for u in updates)
        assert unread > 40 << 20
        # It waits in the store, not in memory.
        assert resident_bytes(running) - before < unread / 4
        for client in clients:
            os.kill(client.pid, signal.SIGCONT)
        for client, output in zip(clients, outputs):
            assert client.wait(120) == 0
            assert [json.loads(line)["sequence"] for line in output.read_text().splitlines()] == list(range(1, 2002))
    finally:
        for client in clients:
            client.kill()
            client.wait()
