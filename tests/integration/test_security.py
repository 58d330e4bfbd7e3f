"""API keys, roles, ownership and limits of a real server."""

import io
import os
import subprocess
import time
import uuid

import grpc
import numpy
import pytest
from google.rpc import error_details_pb2, status_pb2


def make_key(bin_dir, name_and_roles):
    """(the key, its line for the file)"""
    made = subprocess.run([bin_dir / "epo-server", "--new-api-key", name_and_roles], check=True, capture_output=True, text=True)
    key, line = made.stdout.splitlines()
    return key, line


@pytest.fixture(scope="module")
def keys(bin_dir):
    return {name: make_key(bin_dir, f"{name.split('-')[0]}:{roles}")
            for name, roles in [("alice", "submit"), ("alice-reader", "read"), ("bob", "read,submit"), ("root", "admin")]}


def write_keys(path, lines):
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join(lines) + "\n")
    temporary.chmod(0o600)
    os.replace(temporary, path)


@pytest.fixture(scope="module")
def key_file(keys, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    write_keys(path, [line for _, line in keys.values()])
    return path


@pytest.fixture(scope="module")
def guarded(module_server, root, key_file):
    return module_server(root / "tests/parity/phi-tiny", "--api-keys", key_file)


class As:
    """The service's stub with an API key on every call."""

    def __init__(self, stubs, running, key=None, metadata=None):
        self._stub, self._stubs = running.stub, stubs
        self._metadata = [("authorization", f"Bearer {key}")] if key else metadata or []

    def __call__(self, method, request=None, **fields):
        request = request or getattr(self._stubs.service, f"{method}Request")(**fields)
        return getattr(self._stub, method)(request, metadata=self._metadata, timeout=60)

    def refused(self, method, request=None, **fields):
        """The error's code and its details by type."""
        with pytest.raises(grpc.RpcError) as caught:
            result = self(method, request, **fields)
            for _ in result if hasattr(result, "__next__") else ():
                pass
        return code_and_details(caught.value)


def code_and_details(error):
    """The code of a failed call and its details by type."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    found = {}
    for detail in status.details:
        message = getattr(error_details_pb2, detail.TypeName().rsplit(".", 1)[-1])()
        detail.Unpack(message)
        found[type(message).__name__] = message
    assert found["ErrorInfo"].domain == "epo.v1"
    return error.code(), found


@pytest.fixture
def people(stubs, guarded, keys):
    return {name: As(stubs, guarded, key) for name, (key, _) in keys.items()}


def spec(stubs, **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6, "iterations": 2, **fields}
    return stubs.job.JobSpec(objective=objective, **fields)


def every_call(stubs, job="jnosuchjob"):
    """(method, request) of each method that there is."""
    objective, prompt = spec(stubs).objective, stubs.frontier.Prompt(text="hello there")
    base = spec(stubs)
    base.ClearField("objective")
    vector = io.BytesIO()
    numpy.save(vector, numpy.ones(3, numpy.float32))
    requests = {"CreateJob": {"spec": spec(stubs)}, "ListJobs": {}, "ListSweeps": {}, "GetServerInfo": {}, "Tokenize": {"text": "hello"},
                "CreateSweep": {"spec": stubs.sweep.SweepSpec(job=base, objectives=[objective])},
                "Score": {"objective": objective, "prompts": [prompt]}, "Attribute": {"objective": objective, "prompt": prompt},
                "UploadVector": {"npy": vector.getvalue()}}
    service = stubs.service.DESCRIPTOR.services_by_name["EpoService"]
    for method in service.methods:
        message = getattr(stubs.attribution if method.name == "Attribute" else stubs.service, method.input_type.name)
        yield method.name, message(**requests.get(method.name, {"id": job}))


def implemented(person, method, request):
    try:
        result = person(method, request)
        for _ in result if hasattr(result, "__next__") else ():
            pass
    except grpc.RpcError as error:
        return error.code() != grpc.StatusCode.UNIMPLEMENTED
    return True


def test_no_call_without_a_known_key(stubs, guarded, people, keys):
    key = keys["alice"][0]
    strangers = {
        "NO_API_KEY": [As(stubs, guarded)],
        "UNKNOWN_API_KEY": [
            As(stubs, guarded, key[:-1] + ("A" if key[-1] != "A" else "B")),
            As(stubs, guarded, metadata=[("authorization", "Bearer ")]),
            As(stubs, guarded, metadata=[("authorization", key)]),
            As(stubs, guarded, metadata=[("authorization", f"Basic {key}")]),
            As(stubs, guarded, metadata=[("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")]),
        ],
    }
    for method, request in every_call(stubs):
        if not implemented(people["root"], method, request):
            continue
        for reason, callers in strangers.items():
            for caller in callers:
                code, found = caller.refused(method, request)
                assert (code, found["ErrorInfo"].reason) == (grpc.StatusCode.UNAUTHENTICATED, reason), method
    assert As(stubs, guarded, metadata=[("authorization", f"bearer {key}")])("GetServerInfo").version


def test_health_needs_no_key_and_reflection_does(guarded, keys):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    health = health_pb2_grpc.HealthStub(guarded.channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)

    def services(metadata):
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        replies = list(reflection.ServerReflectionInfo(requests, metadata=metadata, timeout=20))
        return {s.name for s in replies[0].list_services_response.service}

    assert "epo.v1.EpoService" in services([("authorization", f"Bearer {keys['alice-reader'][0]}")])
    for metadata in ([], [("authorization", "Bearer epo_guess")]):
        with pytest.raises(grpc.RpcError) as caught:
            services(metadata)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


READ = {"GetJob", "ListJobs", "WatchJob", "GetHistory", "GetFrontier", "Tokenize", "GetServerInfo", "GetSweep", "ListSweeps", "GetSweepFrontier"}


def test_a_role_allows_what_it_says(stubs, people):
    for method, request in every_call(stubs):
        if not implemented(people["root"], method, request):
            continue
        if method in READ:
            assert implemented(people["alice-reader"], method, request)
        else:
            code, found = people["alice-reader"].refused(method, request)
            assert (code, found["ErrorInfo"].reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"), method
            assert found["ErrorInfo"].metadata == {"client": "alice", "method": method, "role": "submit"}
    assert people["alice"]("CreateJob", spec=spec(stubs)).client == "alice"


def test_clients_have_jobs_of_their_own(stubs, people):
    alice, reader, bob, root = (people[n] for n in ("alice", "alice-reader", "bob", "root"))
    request_id = str(uuid.uuid4())
    hers = alice("CreateJob", spec=spec(stubs, iterations=1_000_000), request_id=request_id)
    his = bob("CreateJob", spec=spec(stubs, iterations=1_000_000), request_id=request_id)
    assert (hers.client, his.client) == ("alice", "bob") and hers.id != his.id
    assert alice("CreateJob", spec=spec(stubs, iterations=1_000_000), request_id=request_id).id == hers.id

    for method, request in every_call(stubs, hers.id):
        if "id" not in type(request).DESCRIPTOR.fields_by_name or not implemented(root, method, type(request)(id="jnone")):
            continue
        if "Sweep" in method:  # test_sweeps.py's.
            continue
        code, theirs = bob.refused(method, request)
        unknown = bob.refused(method, type(request)(id="jnosuchjob"))[1]
        assert code == grpc.StatusCode.NOT_FOUND, method
        for found, job in ((theirs, hers.id), (unknown, "jnosuchjob")):
            assert set(found) == {"ErrorInfo"}
            assert (found["ErrorInfo"].reason, found["ErrorInfo"].metadata) == ("JOB_NOT_FOUND", {"id": job})
    assert alice("GetJob", id=hers.id).state in (stubs.job.Job.QUEUED, stubs.job.Job.RUNNING)

    listed = {name: {job.client for job in people[name]("ListJobs").jobs} for name in people}
    assert listed.pop("root") >= {"alice", "bob"}
    assert listed == {"alice": {"alice"}, "alice-reader": {"alice"}, "bob": {"bob"}}
    running = [stubs.job.Job.QUEUED, stubs.job.Job.RUNNING]
    page = root("ListJobs", page_size=1, states=running)
    assert page.jobs[0].id == his.id and page.next_page_token
    # A page of another's list leads nowhere but into one's own.
    assert {j.client for j in alice("ListJobs", page_token=page.next_page_token, states=running).jobs} == {"alice"}

    assert next(iter(reader("WatchJob", id=hers.id))).created.id == hers.id
    assert next(iter(root("WatchJob", id=hers.id))).created.id == hers.id
    assert bob("CancelJob", id=his.id).state == stubs.job.Job.CANCELLED
    assert root("CancelJob", id=hers.id).state == stubs.job.Job.CANCELLED
    alice("DeleteJob", id=hers.id)


def test_ownership_outlives_the_server(server, root, stubs, keys, key_file):
    first = server(root / "tests/parity/phi-tiny", "--api-keys", key_file)
    job = As(stubs, first, keys["alice"][0])("CreateJob", spec=spec(stubs))
    first.stop()
    again = server(root / "tests/parity/phi-tiny", "--api-keys", key_file, state_dir=first.state_dir)
    assert As(stubs, again, keys["alice"][0])("GetJob", id=job.id).client == "alice"
    assert As(stubs, again, keys["bob"][0]).refused("GetJob", id=job.id)[0] == grpc.StatusCode.NOT_FOUND
    again.stop()
    # Without keys everybody is an admin.
    unguarded = server(root / "tests/parity/phi-tiny", state_dir=first.state_dir)
    assert As(stubs, unguarded)("GetJob", id=job.id).client == "alice"


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keys_are_read_again_when_the_file_changes(server, root, stubs, keys, tmp_path):
    path = tmp_path / "keys"
    write_keys(path, [keys["alice"][1]])
    running = server(root / "tests/parity/phi-tiny", "--api-keys", path)
    alice, bob = As(stubs, running, keys["alice"][0]), As(stubs, running, keys["bob"][0])
    assert bob.refused("GetServerInfo")[0] == grpc.StatusCode.UNAUTHENTICATED
    job = alice("CreateJob", spec=spec(stubs, iterations=1_000_000))
    watch = alice("WatchJob", id=job.id)
    assert next(watch).HasField("created")

    def works(person):
        try:
            return bool(person("GetServerInfo"))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            return False

    path.write_text("bob submit epo_plain\n")
    until(lambda: "the API keys stay as they are" in running.log())
    assert f"{path}:1: " in running.log() and "epo_plain" not in running.log()
    assert works(alice)
    write_keys(path, [keys["bob"][1]])
    until(lambda: works(bob))
    assert not works(alice)
    # What was let in goes on.
    assert all(next(watch).HasField("step") for _ in range(20))


def test_a_key_file_that_everybody_reads_is_warned_of(server, root, keys, tmp_path):
    path = tmp_path / "keys"
    write_keys(path, [keys["alice"][1]])
    path.chmod(0o644)
    running = server(root / "tests/parity/phi-tiny", "--api-keys", path, wait=False)
    until(lambda: f"{path} can be read by everybody on this machine" in running.log())


def test_refusals_and_changes_are_logged_without_flooding(server, root, stubs, keys, key_file):
    running = server(root / "tests/parity/phi-tiny", "--api-keys", key_file)
    stranger, alice = As(stubs, running, "epo_guess"), As(stubs, running, keys["alice"][0])
    for _ in range(100):
        assert stranger.refused("GetJob", id="j1")[0] == grpc.StatusCode.UNAUTHENTICATED
    As(stubs, running, keys["alice-reader"][0]).refused("DeleteJob", id="j1")
    job = alice("CreateJob", spec=spec(stubs, iterations=1_000_000))
    alice("CancelJob", id=job.id)
    alice("DeleteJob", id=job.id)
    time.sleep(1.5)
    As(stubs, running, keys["alice-reader"][0]).refused("DeleteJob", id="j1")
    running.stop()
    log = running.log().splitlines()
    refusals = [line for line in log if " refused, from " in line]
    assert 10 <= len(refusals) <= 20
    assert "GetJob refused, from ipv4:127.0.0.1: UNAUTHENTICATED" in refusals[0]
    assert "DeleteJob refused" in refusals[-1] and "client=alice" in refusals[-1] and "more refusals before" in refusals[-1]
    for event in (f"job {job.id} created", f"job {job.id} is to be cancelled", f"job {job.id} deleted"):
        assert [line for line in log if event in line and "client=alice" in line], event
    assert not any("epo_guess" in line or keys["alice"][0] in line for line in log)


def test_command_line_with_a_key(guarded, epo, keys, tmp_path):
    key = keys["bob"][0]
    path = tmp_path / "key"
    path.write_text(key + "\n")
    path.chmod(0o600)
    for flags, env in [((), {"EPO_API_KEY": key}), ((), {"EPO_API_KEY_FILE": str(path)}), (("--api-key-file", path), {})]:
        result = epo("info", *flags, server=guarded, env=env)
        assert (result.returncode, result.stderr) == (0, "")
    run = epo("submit", "--layer", 1, "--neuron", 2, "--iterations", 2, "--population", 2, "--children", 2, "--topk", 8, "--tokens", 4,
              "--watch", "-o", "jsonl", server=guarded, env={"EPO_API_KEY": key})
    assert run.returncode == 0, run.stderr
    job = epo("list", "-o", "jsonl", server=guarded, env={"EPO_API_KEY": key}).stdout.split('"')[3]
    assert epo("history", job, server=guarded, env={"EPO_API_KEY": key}).returncode == 0
    assert epo("get", job, server=guarded, env={"EPO_API_KEY": keys["alice"][0]}).returncode == 64 + 5

    path.chmod(0o644)
    assert "chmod 600" in epo("info", "--api-key-file", path, server=guarded).stderr
    nobody = epo("info", server=guarded)
    assert nobody.returncode == 64 + 16 and "EPO_API_KEY or --api-key-file" in nobody.stderr
    assert epo("delete", "j1", server=guarded, env={"EPO_API_KEY": keys["alice-reader"][0]}).returncode == 64 + 7
    remote = epo("info", "--server", "192.0.2.1:50051", env={"EPO_API_KEY": key})
    assert remote.returncode == 2 and "give --tls" in remote.stderr and key not in remote.stderr


def test_keys_over_tls(server, root, epo, keys, key_file, make_authority):
    authority = make_authority("ours")
    certificate, key = authority.issue("server")
    running = server(root / "tests/parity/phi-tiny", "--api-keys", key_file, "--tls-cert", certificate, "--tls-key", key,
                     credentials=grpc.ssl_channel_credentials(authority.certificate.read_bytes()))
    flags = ("info", "--tls-ca", authority.certificate)
    assert epo(*flags, server=running).returncode == 64 + 16
    assert epo(*flags, server=running, env={"EPO_API_KEY": keys["alice"][0]}).returncode == 0


@pytest.fixture(scope="module")
def narrow(module_server, root, key_file):
    return module_server(
        root / "tests/parity/phi-tiny", "--api-keys", key_file, "--max-queued-jobs-per-client", "2", "--max-streams-per-client", "2",
        "--max-requests-per-second-per-client", "10", "--max-text-bytes", "40", "--max-tokens", "8", "--max-population", "4",
        "--max-children", "16", "--max-iterations", "1000", "--max-top-k", "32", "--max-score-prompts", "3",
        "--max-metadata-bytes", "1000", "--max-message-bytes", "5000")


def patient(person, *args, **kwargs):
    """Calls again when the server says so."""
    while True:
        try:
            return person(*args, **kwargs)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            time.sleep(0.2)


def test_limits_of_a_request(narrow, stubs, keys):
    bob = As(stubs, narrow, keys["bob"][0])
    time.sleep(2)

    def bad(method, request):
        code, found = bob.refused(method, request)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        return {v.field: v.description for v in found["BadRequest"].field_violations}

    found = bad("CreateJob", stubs.service.CreateJobRequest(
        spec=spec(stubs, tokens=9, population=4, children_per_parent=5, iterations=1001, top_k=33)))
    assert {field: text.split("at most ")[1] for field, text in found.items()} == {
        "spec.tokens": "8 (--max-tokens)", "spec.children_per_parent": "16 (--max-children)",
        "spec.iterations": "1000 (--max-iterations)", "spec.top_k": "32 (--max-top-k)"}
    # The defaults count as well.
    assert set(bad("CreateJob", stubs.service.CreateJobRequest(
        spec=stubs.job.JobSpec(objective=spec(stubs).objective, tokens=6)))) == {"spec.population", "spec.top_k"}
    long = stubs.frontier.Prompt(text="x" * 41)
    assert set(bad("CreateJob", stubs.service.CreateJobRequest(spec=spec(stubs, initial_prompts=[long])))) == {"spec.initial_prompts[0]"}
    assert set(bad("Tokenize", stubs.service.TokenizeRequest(text="x" * 41))) == {"text"}
    many = stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=[1] * 9))
    ok = stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=[1] * 8))
    score = stubs.service.ScoreRequest(objective=spec(stubs).objective)
    score.prompts.extend([ok, many])
    assert set(bad("Score", score)) == {"prompts[1]"}
    del score.prompts[:]
    score.prompts.extend([ok] * 4)
    assert set(bad("Score", score)) == {"prompts"}
    del score.prompts[3:]
    assert len(patient(bob, "Score", score).scores) == 3

    # A prompt that fits alone does not in a context.
    time.sleep(1)
    attribute = stubs.attribution.AttributeRequest(objective=score.objective, prompt=ok)
    attribute.contexts.add().prefix.ids.ids.append(1)
    with pytest.raises(grpc.RpcError, match=r"contexts\[0\]: and a prompt have 9 tokens together") as caught:
        next(narrow.stub.Attribute(attribute, timeout=20, metadata=[("authorization", f"Bearer {keys['bob'][0]}")]))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    for fields, metadata in [({"text": "x" * 5001}, []), ({"text": "x"}, [("note", "x" * 2000)])]:
        with pytest.raises(grpc.RpcError) as caught:
            narrow.stub.Tokenize(stubs.service.TokenizeRequest(**fields), timeout=20,
                                 metadata=[("authorization", f"Bearer {keys['bob'][0]}"), *metadata])
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_a_second(narrow, stubs, keys):
    alice, root = As(stubs, narrow, keys["alice"][0]), As(stubs, narrow, keys["root"][0])
    time.sleep(2)
    answered, refusals = 0, []
    for _ in range(60):
        try:
            alice("GetServerInfo")
            answered += 1
        except grpc.RpcError as error:
            refusals.append(code_and_details(error))
    assert answered >= 20 and refusals
    code, found = refusals[0]
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert found["ErrorInfo"].reason == "TOO_MANY_CALLS"
    assert found["ErrorInfo"].metadata == {"client": "alice", "limit": "10"}
    assert 0 < found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() <= 0.1
    # Others are not held up.
    assert root("GetServerInfo").version
    time.sleep(1)
    assert alice("GetServerInfo").version


def test_open_streams(narrow, stubs, keys):
    bob, root = As(stubs, narrow, keys["bob"][0]), As(stubs, narrow, keys["root"][0])
    job = patient(bob, "CreateJob", spec=spec(stubs, iterations=1000, population=4, children_per_parent=4))
    watches = [bob("WatchJob", id=job.id) for _ in range(2)]
    assert all(next(w).HasField("created") for w in watches)
    code, found = bob.refused("WatchJob", id=job.id)
    assert (code, found["ErrorInfo"].reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert found["ErrorInfo"].metadata == {"client": "bob", "limit": "2"} and found["RetryInfo"].HasField("retry_delay")
    assert bob.refused("GetHistory", id=job.id)[1]["ErrorInfo"].reason == "TOO_MANY_STREAMS"
    assert next(root("WatchJob", id=job.id)).HasField("created")
    watches[0].cancel()

    def third():
        try:
            return next(bob("WatchJob", id=job.id)).HasField("created")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

    until(third)
    patient(bob, "CancelJob", id=job.id)


def test_waiting_jobs(server, root, stubs, keys, key_file):
    running = server(root / "tests/parity/phi-tiny", "--api-keys", key_file, "--max-queued-jobs-per-client", "2")
    alice, bob = As(stubs, running, keys["alice"][0]), As(stubs, running, keys["bob"][0])
    # Its round takes seconds, and what comes meanwhile waits.
    busy = alice("CreateJob", spec=spec(stubs, population=256, children_per_parent=128))
    until(lambda: alice("GetJob", id=busy.id).state == stubs.job.Job.RUNNING)
    request = stubs.service.CreateJobRequest(spec=spec(stubs), request_id=str(uuid.uuid4()))
    first = alice("CreateJob", request)
    second = alice("CreateJob", spec=spec(stubs))
    code, found = alice.refused("CreateJob", spec=spec(stubs))
    assert (code, found["ErrorInfo"].reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUEUED_JOBS")
    assert found["ErrorInfo"].metadata == {"client": "alice", "limit": "2"} and found["RetryInfo"].HasField("retry_delay")
    # A repeat is no new job, and others have a limit of their own.
    assert alice("CreateJob", request).id == first.id
    assert bob("CreateJob", spec=spec(stubs)).client == "bob"
    assert all(alice("GetJob", id=job.id).state == stubs.job.Job.QUEUED for job in (first, second))
    list(alice("WatchJob", id=second.id))
    assert alice("CreateJob", spec=spec(stubs)).id
