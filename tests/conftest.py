"""Fixtures of the Python tests: the built binaries, the models, the wire contract's stubs and real servers.

    def test_something(server, stubs, smollm2_dir):
        running = server(smollm2_dir, dtype="float32")
        info = running.stub.GetServerInfo(stubs.service.GetServerInfoRequest())

Environment: EPO_BIN_DIR, where `epo` and `epo-server` are (default build/release/bin).
"""

import contextlib
import importlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def bin_dir():
    """The folder that holds `epo` and `epo-server`."""
    path = pathlib.Path(os.environ.get("EPO_BIN_DIR", ROOT / "build/release/bin")).resolve()
    assert (path / "epo-server").exists(), f"{path}/epo-server is missing: build it, or set EPO_BIN_DIR"
    return path


@pytest.fixture(scope="session")
def smollm2_dir():
    """SmolLM2-135M-Instruct in Hugging Face layout, made if it is missing."""
    subprocess.run([ROOT / "scripts/fetch-model", "smollm2"], check=True, stdout=sys.stderr)
    return ROOT / "models/smollm2-135m"


def make_stubs(out):
    """Generates the modules that `stubs` has into the folder `out` and imports them."""
    from grpc_tools import protoc

    protos = sorted(str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto").glob("epo/v1/*.proto"))
    well_known = pathlib.Path(sys.modules["grpc_tools"].__file__).parent / "_proto"
    includes = [ROOT / "proto", sysconfig.get_paths()["purelib"], well_known]
    code = protoc.main(
        ["protoc", *(f"-I{i}" for i in includes), f"--python_out={out}", f"--grpc_python_out={out}", *protos]
    )
    assert code == 0, f"protoc failed on {protos}"
    sys.path.insert(0, str(out))
    modules = {pathlib.Path(p).stem: importlib.import_module(f"epo.v1.{pathlib.Path(p).stem}_pb2") for p in protos}
    return types.SimpleNamespace(**modules, grpc=importlib.import_module("epo.v1.service_pb2_grpc"), path=out)


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Python modules of proto/epo/v1: `.objective .frontier .job .model .sweep .service` (messages) and `.grpc` (EpoServiceStub)."""
    return make_stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="session")
def client_package(tmp_path_factory):
    """The folder that pip installed the Python client into, as built from client/python."""
    target = tmp_path_factory.mktemp("client")
    # What the build needs is in .venv, and so is what the package needs.
    options = ["--no-input", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--quiet", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, ROOT / "client/python"], check=True, stdout=sys.stderr)
    return target


@pytest.fixture(scope="session")
def epo_client(client_package):
    """The Python client, imported from where it was installed."""
    sys.path.insert(0, str(client_package))
    return importlib.import_module("epo_client")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A running epo-server process."""

    def __init__(self, command, address, state_dir, log_path, stubs, credentials=None):
        import grpc

        self.command = [str(c) for c in command]
        self.address = address
        self.state_dir = state_dir
        self.log_path = log_path
        self._stubs = stubs
        with open(log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        self.stub = stubs.grpc.EpoServiceStub(self.channel)

    def wait_serving(self, timeout=180):
        """Returns once grpc.health.v1 says SERVING; raises with the log's end when the process dies or time is over."""
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        health = health_pb2_grpc.HealthStub(self.channel)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"epo-server exited with {self.process.returncode}\n{self.log_tail()}")
            with contextlib.suppress(grpc.RpcError):
                reply = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return self
            time.sleep(0.05)
        raise TimeoutError(f"epo-server is not SERVING after {timeout} s\n{self.log_tail()}")

    def stop(self, sig=signal.SIGTERM, timeout=60):
        """Sends `sig` and returns the exit code (negative: the signal that ended it)."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.channel.close()

    def kill(self):
        self.stop(signal.SIGKILL)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])


class ServerFactory:
    """Starts epo-server processes; `close()` kills those that still run."""

    def __init__(self, bin_dir, stubs, tmp_path):
        self._bin_dir = bin_dir
        self._stubs = stubs
        self._tmp_path = tmp_path
        self.servers = []

    def __call__(self, model, *flags, dtype="float32", state_dir=None, port=None, wait=True, credentials=None, prefix=()):
        """A server on `model` that is SERVING (or, with wait=False, only started). `flags` are further command-line flags; a second
        call with the first one's `state_dir` (and `port`) is a restart. `credentials` are grpcio's, for a server with TLS. `prefix` is a
        command that becomes the server's, such as `env`."""
        number = len(self.servers)
        state_dir = state_dir or self._tmp_path / f"state-{number}"
        address = f"127.0.0.1:{port or free_port()}"
        command = [*prefix, self._bin_dir / "epo-server", "--model", model, "--device", "cpu", "--dtype", dtype]
        command += ["--listen", address, "--state-dir", state_dir, *flags]
        if "--metrics-listen" not in flags:
            command += ["--metrics-listen", "127.0.0.1:0"]
        server = Server(command, address, state_dir, self._tmp_path / f"server-{number}.log", self._stubs, credentials)
        self.servers.append(server)
        return server.wait_serving() if wait else server

    def close(self):
        for server in self.servers:
            server.kill()


@pytest.fixture
def server(bin_dir, stubs, tmp_path):
    """Factory of servers that live as long as the test: see ServerFactory.__call__."""
    factory = ServerFactory(bin_dir, stubs, tmp_path)
    yield factory
    factory.close()


@pytest.fixture(scope="module")
def module_server(bin_dir, stubs, tmp_path_factory):
    """Factory of servers that live as long as the module's tests."""
    factory = ServerFactory(bin_dir, stubs, tmp_path_factory.mktemp("server"))
    yield factory
    factory.close()


@pytest.fixture
def epo(bin_dir):
    """Runs the command line: epo("list", "-o", "json", server=running) -> CompletedProcess with text output."""

    def run(*args, server=None, timeout=300, env=None, **kwargs):
        environment = {**os.environ, "NO_COLOR": "1", **(env or {})}
        if server is not None:
            environment["EPO_SERVER"] = server.address
        return subprocess.run(
            [bin_dir / "epo", *map(str, args)],
            env=environment, timeout=timeout, text=True, capture_output=True, stdin=subprocess.DEVNULL, **kwargs,
        )

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for name in ("server", "module_server"):
            factory = item.funcargs.get(name)
            for number, server in enumerate(factory.servers if isinstance(factory, ServerFactory) else []):
                report.sections.append((f"log of server {number} ({server.address})", server.log_tail()))
    return report
