"""`epo health` against real servers, and against other servers of gRPC's health service for the states that are hard to bring about."""

import concurrent.futures
import json
import signal
import socket
import time

import grpc
import pytest
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2, health_pb2_grpc

NOT_SERVING = 64 + grpc.StatusCode.UNAVAILABLE.value[0]
STORE = "epo.v1.EpoService/store"


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def answers(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_server_that_serves(server, tiny, epo):
    running = server(tiny)
    table = epo("health", server=running)
    assert (table.returncode, table.stdout, table.stderr) == (0, "server  SERVING\nstore   SERVING\n", "")
    lines = epo("health", "-o", "jsonl", server=running)
    assert answers(lines) == [{"server": "SERVING", "store": "SERVING"}]
    assert json.loads(epo("health", "-o", "json", server=running).stdout) == answers(lines)[0]
    running.stop()
    gone = epo("health", server=running)
    assert (gone.returncode, gone.stdout) == (NOT_SERVING, "")
    assert "Connection refused" in gone.stderr


def test_a_server_that_drains(server, stubs, tiny, epo):
    running = server(tiny, "--drain-timeout", "10s")
    # A step takes seconds.
    spec = stubs.job.JobSpec(population=64, children_per_parent=256, tokens=32, iterations=100_000)
    spec.objective.neuron.layer = 2
    job = running.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec))
    while running.stub.GetJob(stubs.service.GetJobRequest(id=job.id)).state != stubs.job.Job.RUNNING:
        time.sleep(0.02)
    running.process.send_signal(signal.SIGTERM)
    while (result := epo("health", "-o", "jsonl", server=running)).returncode == 0:
        pass
    assert result.returncode == NOT_SERVING
    assert answers(result) == [{"server": "NOT_SERVING", "store": "UNKNOWN"}]
    assert "is stopping" in result.stderr


def test_a_server_with_keys_and_certificates(server, tiny, epo, make_authority, bin_dir, tmp_path):
    authority = make_authority("ours")
    certificate, key = authority.issue("server")
    mine = authority.issue("probe")
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), mine[1].read_bytes(), mine[0].read_bytes())
    keys = tmp_path / "keys"
    keys.write_text(f"probe read sha256:{'0' * 64}\n")
    keys.chmod(0o600)
    running = server(tiny, "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", authority.certificate, "--api-keys", keys,
                     credentials=credentials)
    tls = {"EPO_TLS_CA": str(authority.certificate)}
    # No key is needed, but the certificate that every connection needs.
    assert epo("health", server=running, env={**tls, "EPO_TLS_CERT": str(mine[0]), "EPO_TLS_KEY": str(mine[1])}).returncode == 0
    for environment in ({}, tls):
        result = epo("health", server=running, env=environment)
        assert (result.returncode, result.stdout) == (NOT_SERVING, ""), result.stderr


class Impostor:
    """A gRPC server whose health service, if it has one, says what it is told."""

    def __init__(self, statuses=None, delay=0):
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        if statuses is not None:
            health_pb2_grpc.add_HealthServicer_to_server(Slow(statuses, delay), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None)


class Slow(health_service.HealthServicer):
    def __init__(self, statuses, delay):
        super().__init__()
        self._delay = delay
        for service, status in statuses.items():
            self.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))

    def Check(self, request, context):
        time.sleep(self._delay)
        return super().Check(request, context)


@pytest.mark.parametrize(
    "statuses, code, server_says, store_says",
    [
        # Jobs wait, reads go on: no reason to start the server again.
        ({"": "SERVING", STORE: "NOT_SERVING"}, 0, "SERVING", "NOT_SERVING"),
        ({"": "SERVING"}, 0, "SERVING", "UNKNOWN"),
        ({"": "NOT_SERVING", STORE: "SERVING"}, NOT_SERVING, "NOT_SERVING", "UNKNOWN"),
        ({"": "UNKNOWN"}, NOT_SERVING, "UNKNOWN", "UNKNOWN"),
        ({"": "SERVICE_UNKNOWN"}, NOT_SERVING, "SERVICE_UNKNOWN", "UNKNOWN"),
    ],
)
def test_the_exit_code_is_the_servers_own_state(epo, statuses, code, server_says, store_says):
    with Impostor(statuses) as impostor:
        result = epo("health", "-o", "json", server=impostor)
    assert result.returncode == code, result.stderr
    assert json.loads(result.stdout) == {"server": server_says, "store": store_says}
    assert bool(result.stderr) == (code != 0)


def test_who_does_not_know_the_question_is_not_healthy(epo):
    with Impostor() as impostor:
        result = epo("health", server=impostor)
    assert (result.returncode, result.stdout) == (64 + grpc.StatusCode.UNIMPLEMENTED.value[0], "")
    assert "UNIMPLEMENTED" in result.stderr


def test_an_answer_that_does_not_come_is_not_waited_for(epo):
    with Impostor({"": "SERVING"}, delay=20) as impostor:
        result = epo("health", server=impostor, timeout=60)
    assert (result.returncode, result.stdout) == (64 + grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = epo("health", "--server", f"127.0.0.1:{silent.getsockname()[1]}", timeout=60)
    assert (result.returncode, result.stdout) == (NOT_SERVING, "")
