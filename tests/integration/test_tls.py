"""TLS and mutual TLS of a real server: who is let in, and certificates that are replaced while it runs."""

import os
import ssl
import time

import grpc
import pytest


@pytest.fixture(scope="module")
def authority(make_authority):
    return make_authority("ours")


@pytest.fixture(scope="module")
def stranger(make_authority):
    return make_authority("theirs")


def channel_credentials(authority, pair=None):
    certificate, key = (path.read_bytes() for path in pair) if pair else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)


def connect(address, credentials):
    """A channel with a connection of its own."""
    return grpc.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])


def info(stubs, address, credentials):
    with connect(address, credentials) as channel:
        return stubs.grpc.EpoServiceStub(channel).GetServerInfo(stubs.service.GetServerInfoRequest(), timeout=10)


def refused(stubs, address, credentials):
    with pytest.raises(grpc.RpcError) as caught:
        info(stubs, address, credentials)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    return caught.value.details()


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def tls_server(module_server, root, authority):
    certificate, key = authority.issue("server")
    return module_server(root / "tests/parity/phi-tiny", "--tls-cert", certificate, "--tls-key", key,
                         credentials=channel_credentials(authority))


def test_tls_lets_in_who_trusts_the_authority(tls_server, stubs, stranger):
    assert tls_server.stub.GetServerInfo(stubs.service.GetServerInfoRequest()).version
    assert "certificate" in refused(stubs, tls_server.address, channel_credentials(stranger)).lower()
    with grpc.insecure_channel(tls_server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        stubs.grpc.EpoServiceStub(channel).GetServerInfo(stubs.service.GetServerInfoRequest(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_reflection_and_streams_over_tls(tls_server, stubs):
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    reflection = reflection_pb2_grpc.ServerReflectionStub(tls_server.channel)
    reply = next(reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10))
    assert "epo.v1.EpoService" in {s.name for s in reply.list_services_response.service}


def test_command_line_over_tls(tls_server, epo, authority, stranger, tmp_path):
    flags = ("--tls-ca", authority.certificate)
    assert epo("info", *flags, server=tls_server).returncode == 0
    assert epo("info", server=tls_server, env={"EPO_TLS_CA": str(authority.certificate)}).returncode == 0
    (tmp_path / "epo").mkdir()
    (tmp_path / "epo/config.toml").write_text(
        f'server = "{tls_server.address}"\ntls = true\ntls-ca = "{authority.certificate}"\n')
    assert epo("info", env={"XDG_CONFIG_HOME": str(tmp_path)}).returncode == 0
    # Watching and the history make calls of their own.
    run = epo("submit", *flags, "--layer", 1, "--neuron", 2, "--iterations", 2, "--population", 2, "--children", 2, "--topk", 8,
              "--tokens", 4, "--watch", "-o", "jsonl", server=tls_server)
    assert run.returncode == 0, run.stderr
    job = epo("list", *flags, "-o", "jsonl", server=tls_server).stdout.split('"')[3]
    assert len(epo("history", job, *flags, "-o", "jsonl", server=tls_server).stdout.splitlines()) == 2


def test_command_line_says_why_tls_fails(tls_server, module_server, root, epo, authority, stranger):
    plain = module_server(root / "tests/parity/phi-tiny")
    key = authority.issue("one")[1]
    for server, flags, expected in [
        (tls_server, (), "does it want TLS (--tls)"),
        (tls_server, ("--tls-ca", stranger.certificate), "(--tls-ca names the authorities)"),
        (tls_server, ("--tls",), "(--tls-ca names the authorities)"),
        (tls_server, ("--tls-ca", authority.certificate, "--tls-cert", authority.certificate, "--tls-key", key), "cannot be used together"),
        (plain, ("--tls",), "it does not speak TLS"),
    ]:
        result = epo("info", *flags, server=server)
        assert result.returncode == 64 + grpc.StatusCode.UNAVAILABLE.value[0]
        assert len(result.stderr.splitlines()) == 1
        assert expected in result.stderr, result.stderr


def test_command_line_checks_the_servers_name(server, root, epo, authority):
    certificate, key = authority.issue("elsewhere", names="DNS:elsewhere")
    running = server(root / "tests/parity/phi-tiny", "--tls-cert", certificate, "--tls-key", key, wait=False)
    until(lambda: "listening on" in running.log(), "a server")
    result = epo("info", "--tls-ca", authority.certificate, server=running)
    assert "its certificate is for other names" in result.stderr, result.stderr


def test_mutual_tls(server, root, stubs, epo, authority, stranger):
    certificate, key = authority.issue("mutual")
    client, expired, strange = authority.issue("client"), authority.issue("expired-client", days=-1), stranger.issue("client")
    running = server(root / "tests/parity/phi-tiny", "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca",
                     authority.certificate, credentials=channel_credentials(authority, client))
    assert running.stub.GetServerInfo(stubs.service.GetServerInfoRequest()).version
    for pair in (None, expired, strange):
        refused(stubs, running.address, channel_credentials(authority, pair))

    ca = ("--tls-ca", authority.certificate)
    assert epo("info", *ca, "--tls-cert", client[0], "--tls-key", client[1], server=running).returncode == 0
    for pair in (None, expired, strange):
        own = ("--tls-cert", pair[0], "--tls-key", pair[1]) if pair else ()
        result = epo("info", *ca, *own, server=running)
        assert result.returncode == 64 + grpc.StatusCode.UNAVAILABLE.value[0], result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_an_expired_server_is_warned_of_and_refused(server, root, stubs, authority):
    certificate, key = authority.issue("expired", days=-1)
    running = server(root / "tests/parity/phi-tiny", "--tls-cert", certificate, "--tls-key", key, wait=False)
    until(lambda: "listening on" in running.log(), "a server")
    assert f"{certificate}: the certificate has expired on" in running.log()
    assert "certificate" in refused(stubs, running.address, channel_credentials(authority)).lower()


def presented(address):
    host, port = address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port))).strip()


def test_replaced_certificates_reach_new_connections_and_old_calls_go_on(server, root, stubs, tmp_path, authority, stranger):
    old, new = authority.issue("before"), stranger.issue("after")
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def install(source, target):
        temporary = target.with_suffix(".new")
        temporary.write_bytes(source.read_bytes())
        os.replace(temporary, target)

    install(old[0], certificate)
    install(old[1], key)
    running = server(root / "tests/parity/phi-tiny", "--tls-cert", certificate, "--tls-key", key,
                     credentials=channel_credentials(authority))
    spec = stubs.job.JobSpec(objective=stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=1, neuron=1)),
                             population=2, children_per_parent=2, top_k=8, tokens=4, iterations=1_000_000)
    job = running.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec))
    watch = running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id))
    assert next(watch).HasField("created")
    assert presented(running.address) == old[0].read_text().strip()

    # Half of a renewal: the key is not the certificate's. What is there stays.
    install(new[1], key)
    until(lambda: "the TLS certificates stay as they are" in running.log(), "a word about the half renewal")
    assert f"{key}: not the key of the certificate in {certificate}" in running.log()
    assert presented(running.address) == old[0].read_text().strip()
    assert info(stubs, running.address, channel_credentials(authority)).version

    install(new[0], certificate)
    until(lambda: presented(running.address) == new[0].read_text().strip(), "the new certificate")
    assert info(stubs, running.address, channel_credentials(stranger)).version
    refused(stubs, running.address, channel_credentials(authority))
    before = next(watch).sequence
    for _ in range(50):
        next(watch)
    assert next(watch).sequence >= before + 50
    running.stub.CancelJob(stubs.service.CancelJobRequest(id=job.id))


def test_a_server_that_cannot_use_its_files_does_not_start(bin_dir, root, tmp_path, authority, stranger):
    import subprocess

    certificate, key = authority.issue("unused")
    other_key = stranger.issue("unused")[1]
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")

    def start(*flags):
        command = [bin_dir / "epo-server", "--model", root / "tests/parity/phi-tiny", "--state-dir", tmp_path / "state", *flags]
        return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)

    for flags, code, expected in [
        (("--tls-cert", certificate), 2, "--tls-cert requires --tls-key"),
        (("--tls-client-ca", certificate), 2, "--tls-client-ca requires --tls-cert"),
        (("--tls-cert", tmp_path / "none", "--tls-key", key), 2, "none"),
        (("--tls-cert", certificate, "--tls-key", other_key), 1, f"{other_key}: not the key of the certificate"),
        (("--tls-cert", key, "--tls-key", key), 1, f"{key}: not a PEM file of certificates"),
        (("--tls-cert", certificate, "--tls-key", certificate), 1, f"{certificate}: not a PEM file of a private key"),
        (("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", garbage), 1, f"{garbage}: not a PEM file"),
        (("--listen", "0.0.0.0:0"), 2, "--insecure"),
        (("--listen", "0.0.0.0:0", "--tls-cert", certificate, "--tls-key", key), 2, "--api-keys or --tls-client-ca"),
        (("--listen", "0.0.0.0:0", "--insecure", "--api-keys", key), 2, "show the keys to the network"),
    ]:
        result = start(*flags)
        assert result.returncode == code, (flags, result.stderr)
        assert expected in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    assert not (tmp_path / "state").exists()
