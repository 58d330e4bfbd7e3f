"""The RPCs of a real server: what they answer and what they refuse."""

import time
import uuid

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2


@pytest.fixture(scope="module")
def running(module_server, root):
    return module_server(root / "tests/parity/phi-tiny")


@pytest.fixture(scope="module")
def rpc(running):
    return running.stub


def details(error):
    """The google.rpc details of an RPC error, by type."""
    blob = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(blob)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found = {}
    for any_detail in status.details:
        name = any_detail.TypeName().rsplit(".", 1)[-1]
        assert name not in found, "a detail type appears twice"
        message = getattr(error_details_pb2, name)()
        assert any_detail.Unpack(message)
        found[name] = message
    assert found["ErrorInfo"].domain == "epo.v1"
    return found


def bad_fields(error):
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = details(error)
    assert found["ErrorInfo"].reason == "INVALID_FIELD"
    return {v.field: v.description for v in found["BadRequest"].field_violations}


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        result = call(request, timeout=30)
        for _ in result if hasattr(result, "__next__") else ():
            pass
    return caught.value


def make_spec(stubs, **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6, "iterations": 5, **fields}
    return stubs.job.JobSpec(**{"objective": objective, **fields})


def create(rpc, stubs, request_id="", **fields):
    return rpc.CreateJob(stubs.service.CreateJobRequest(spec=make_spec(stubs, **fields), request_id=request_id), timeout=30)


def watch(rpc, stubs, job_id, after=0):
    return list(rpc.WatchJob(stubs.service.WatchJobRequest(id=job_id, after_sequence=after), timeout=240))


def finished(rpc, stubs, **fields):
    job = create(rpc, stubs, **fields)
    return watch(rpc, stubs, job.id)[-1].ended


def test_server_info(rpc, stubs):
    info = rpc.GetServerInfo(stubs.service.GetServerInfoRequest())
    assert info.version == "0.1.0"
    assert info.model.name == "phi-tiny"
    assert info.model.architecture == "phi"
    assert (info.model.device, info.model.dtype) == ("cpu", "float32")
    assert len(info.model.fingerprint) == 32
    assert info.model.layers > 2 and info.model.neurons_per_layer > 5
    assert 0 < info.model.proposable_tokens <= info.model.vocabulary_size


def test_job_shows_the_defaults_that_run(rpc, stubs):
    request = stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=make_spec(stubs).objective, top_k=64))
    job = rpc.CreateJob(request)
    rpc.CancelJob(stubs.service.CancelJobRequest(id=job.id))
    spec = job.spec
    assert (spec.tokens, spec.population, spec.children_per_parent, spec.top_k) == (12, 8, 32, 64)
    assert (spec.penalty_min, spec.penalty_max, spec.iterations, spec.restart_period) == (0.1, 10, 300, 50)
    assert (spec.restart_penalty.low, spec.restart_penalty.high, spec.seed) == (2, 2, 0)
    assert spec.HasField("seed") and spec.HasField("allow_special_tokens")


def test_job_runs_to_its_end(rpc, stubs):
    job = create(rpc, stubs, iterations=5)
    assert job.state == stubs.job.Job.QUEUED
    assert job.id.isascii() and job.id == job.id.lower() and len(job.id) <= 64
    created, *steps, ended = watch(rpc, stubs, job.id)
    assert created.created.id == job.id and created.sequence == 0
    assert [s.sequence for s in steps] == [1, 2, 3, 4, 5]
    assert [s.step.index for s in steps] == [0, 1, 2, 3, 4]
    for update in steps:
        assert len(update.step.slots) == 2
        assert update.step.evaluations == 10 * (update.step.index + 1)
        assert update.step.seconds > 0
        costs = [p.cross_entropy for p in update.step.frontier.points]
        assert costs == sorted(costs) and costs
        for slot in update.step.slots:
            assert len(slot.prompt.ids) == 6 and slot.prompt.text
    assert steps[0].step.HasField("restart_penalty") and not steps[1].step.HasField("restart_penalty")
    assert ended.sequence == 6
    assert ended.ended.state == stubs.job.Job.SUCCEEDED
    assert ended.ended.completed_iterations == 5 and ended.ended.evaluations == 50
    assert ended.ended.run_seconds > 0
    assert ended.ended.create_time.ToNanoseconds() <= ended.ended.start_time.ToNanoseconds() <= ended.ended.end_time.ToNanoseconds()
    assert rpc.GetJob(stubs.service.GetJobRequest(id=job.id)) == ended.ended


def test_history_and_frontiers_agree(rpc, stubs):
    job = finished(rpc, stubs, iterations=5)
    history = list(rpc.GetHistory(stubs.service.GetHistoryRequest(id=job.id)))
    assert [i.index for i in history] == [0, 1, 2, 3, 4]
    pool = []
    for iteration in history:
        assert len(iteration.ids) == len(iteration.target) == len(iteration.cross_entropy) == 10
        assert len(iteration.keep) == 2 and all(0 <= k < 10 for k in iteration.keep)
        for ids, target, cost in zip(iteration.ids, iteration.target, iteration.cross_entropy):
            pool.append((tuple(ids.ids), (target, cost)))
    for before, after in zip(history, history[1:]):
        assert [before.ids[k] for k in before.keep] == list(after.ids[:2])
    assert list(rpc.GetHistory(stubs.service.GetHistoryRequest(id=job.id, first_iteration=3))) == history[3:]
    assert list(rpc.GetHistory(stubs.service.GetHistoryRequest(id=job.id, first_iteration=9))) == []

    last = watch(rpc, stubs, job.id)[-2].step
    for kind in (stubs.frontier.FRONTIER_KIND_UNSPECIFIED, stubs.frontier.LAMBDA):
        assert rpc.GetFrontier(stubs.service.GetFrontierRequest(id=job.id, kind=kind)) == last.frontier
    pareto = rpc.GetFrontier(stubs.service.GetFrontierRequest(id=job.id, kind=stubs.frontier.PARETO))
    got = {(tuple(p.ids), (p.target, p.cross_entropy)) for p in pareto.points}

    def dominated(a):
        return any(b[0] >= a[0] and b[1] <= a[1] and b != a for _, b in pool)

    assert got == {(ids, score) for ids, score in pool if not dominated(score)}
    costs = [p.cross_entropy for p in pareto.points]
    assert costs == sorted(costs)


def test_score_equals_the_search(rpc, stubs):
    job = finished(rpc, stubs, iterations=2)
    iteration = list(rpc.GetHistory(stubs.service.GetHistoryRequest(id=job.id)))[1]
    request = stubs.service.ScoreRequest(objective=job.spec.objective)
    for ids in iteration.ids:
        request.prompts.add().ids.ids.extend(ids.ids)
    scores = rpc.Score(request).scores
    assert [list(s.ids) for s in scores] == [list(i.ids) for i in iteration.ids]
    assert [s.target for s in scores] == pytest.approx(list(iteration.target), abs=1e-4)
    assert [s.cross_entropy for s in scores] == pytest.approx(list(iteration.cross_entropy), abs=1e-4)


def test_score_of_text_and_of_one_token(rpc, stubs):
    tokens = rpc.Tokenize(stubs.service.TokenizeRequest(text="hello there")).tokens
    assert b"".join(t.value for t in tokens) == b"hello there"
    request = stubs.service.ScoreRequest(objective=make_spec(stubs).objective)
    request.prompts.add(text="hello there")
    request.prompts.add().ids.ids.append(tokens[0].id)
    text, one = rpc.Score(request).scores
    assert list(text.ids) == [t.id for t in tokens] and text.text == "hello there"
    assert text.HasField("cross_entropy") and not one.HasField("cross_entropy")


def test_score_of_many(rpc, stubs):
    request = stubs.service.ScoreRequest(objective=make_spec(stubs).objective)
    for i in range(1024):
        request.prompts.add().ids.ids.extend([i % 100, 1, 2])
    scores = rpc.Score(request, timeout=120).scores
    assert [s.ids[0] for s in scores] == [i % 100 for i in range(1024)]
    assert scores[0].target == pytest.approx(scores[100].target, abs=1e-5)
    request.prompts.add().ids.ids.append(1)
    assert set(bad_fields(refused(rpc.Score, request))) == {"prompts"}


def test_score_lists_every_bad_prompt(rpc, stubs):
    request = stubs.service.ScoreRequest()
    request.objective.neuron.layer = 99
    request.prompts.add(text="fine")
    request.prompts.add(text="")
    request.prompts.add()
    request.prompts.add().ids.ids.extend([1, 10**6])
    request.prompts.add().ids.ids.extend([-1])
    request.prompts.add().ids.ids.extend([1] * 100_000)
    request.prompts.add().ids.SetInParent()
    fields = bad_fields(refused(rpc.Score, request))
    assert set(fields) == {"objective.neuron.layer", *(f"prompts[{i}]" for i in range(1, 7))}
    assert "1000000" in fields["prompts[3]"] and "100000" in fields["prompts[5]"]
    assert set(bad_fields(refused(rpc.Score, stubs.service.ScoreRequest()))) == {"objective", "prompts"}


def test_more_bad_fields_than_trailers_hold(rpc, stubs):
    request = stubs.service.ScoreRequest(objective=make_spec(stubs).objective)
    for _ in range(1000):
        request.prompts.add(text="")
    error = refused(rpc.Score, request)
    found = details(error)
    violations = found["BadRequest"].field_violations
    assert violations[0].field == "prompts[0]"
    assert violations[-1].description == f"and {1000 - (len(violations) - 1)} more bad fields from here on"
    assert found["ErrorInfo"].metadata["others"] == "999"


@pytest.mark.parametrize(
    "path, fields",
    [
        ("spec.objective", {"objective": None}),
        ("spec.objective.neuron.layer", {"layer": 99}),
        ("spec.objective.neuron.layer", {"layer": -1}),
        ("spec.objective.neuron.neuron", {"neuron": 10**6}),
        ("spec.objective.neuron.neuron", {"neuron": -3}),
        ("spec.tokens", {"tokens": 1}),
        ("spec.tokens", {"tokens": 10**6}),
        ("spec.population", {"population": 0}),
        ("spec.population", {"population": -8}),
        ("spec.population", {"population": 2**31 - 1}),
        ("spec.children_per_parent", {"children_per_parent": -1}),
        ("spec.top_k", {"top_k": 0}),
        ("spec.top_k", {"top_k": 10**6}),
        ("spec.penalty_min", {"penalty_min": float("nan")}),
        ("spec.penalty_min", {"penalty_min": -1.0}),
        ("spec.penalty_max", {"penalty_max": float("nan")}),
        ("spec.penalty_max", {"penalty_max": float("inf")}),
        ("spec.penalty_max", {"penalty_min": 1.0, "penalty_max": 0.5}),
        ("spec.iterations", {"iterations": 0}),
        ("spec.iterations", {"iterations": -1}),
        ("spec.restart_period", {"restart_period": -1}),
        ("spec.restart_penalty.low", {"restart_penalty": (float("nan"), 2.0)}),
        ("spec.restart_penalty.low", {"restart_penalty": (-1.0, 2.0)}),
        ("spec.restart_penalty.high", {"restart_penalty": (2.0, 1.0)}),
        ("spec.initial_prompts[0]", {"prompts": [""]}),
        ("spec.initial_prompts[0]", {"prompts": ["hello there"], "tokens": 11}),
        ("spec.initial_prompts[1]", {"prompts": [[1, 2, 3, 4, 5, 6], [1, 2, 3]]}),
        ("spec.initial_prompts[1]", {"prompts": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 10**6]]}),
        ("spec.initial_prompts", {"prompts": [[1, 2, 3, 4, 5, 6]] * 3}),
    ],
)
def test_create_names_the_bad_field(rpc, stubs, path, fields):
    fields = dict(fields)
    objective = stubs.objective.NeuronObjective(layer=fields.pop("layer", 2), neuron=fields.pop("neuron", 5))
    spec_fields = {"objective": stubs.objective.Objective(neuron=objective)}
    if "restart_penalty" in fields:
        low, high = fields.pop("restart_penalty")
        spec_fields["restart_penalty"] = stubs.job.PenaltyRange(low=low, high=high)
    if "prompts" in fields:
        spec_fields["initial_prompts"] = [
            stubs.frontier.Prompt(text=p) if isinstance(p, str) else stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=p))
            for p in fields.pop("prompts")
        ]
    spec = make_spec(stubs, **{**spec_fields, **fields})
    found = bad_fields(refused(rpc.CreateJob, stubs.service.CreateJobRequest(spec=spec)))
    assert set(found) == {path}
    assert rpc.GetServerInfo(stubs.service.GetServerInfoRequest()).version


def test_create_lists_every_bad_field(rpc, stubs):
    spec = make_spec(stubs, tokens=1, population=-1, top_k=10**6, penalty_min=float("nan"), iterations=0)
    spec.objective.neuron.layer = 77
    request = stubs.service.CreateJobRequest(spec=spec, request_id="not-a-uuid")
    error = refused(rpc.CreateJob, request)
    assert set(bad_fields(error)) == {
        "request_id", "spec.objective.neuron.layer", "spec.tokens", "spec.population", "spec.top_k", "spec.penalty_min",
        "spec.iterations",
    }
    assert details(error)["ErrorInfo"].metadata["fields"].split(",")[0] == "request_id"
    assert "\n" not in error.details()
    assert set(bad_fields(refused(rpc.CreateJob, stubs.service.CreateJobRequest()))) == {"spec"}


def test_tokens_follow_the_initial_prompt(rpc, stubs):
    text = "hello there"
    length = len(rpc.Tokenize(stubs.service.TokenizeRequest(text=text)).tokens)
    spec = make_spec(stubs, initial_prompts=[stubs.frontier.Prompt(text=text)])
    spec.ClearField("tokens")
    job = rpc.CreateJob(stubs.service.CreateJobRequest(spec=spec))
    assert job.spec.tokens == length
    assert job.spec.initial_prompts[0].text == text
    watch(rpc, stubs, job.id)
    first = next(rpc.GetHistory(stubs.service.GetHistoryRequest(id=job.id)))
    scored = rpc.Tokenize(stubs.service.TokenizeRequest(text=text)).tokens
    assert list(first.ids[0].ids) == list(first.ids[1].ids) == [t.id for t in scored]


def test_request_id(rpc, stubs):
    request_id = str(uuid.uuid4())
    job = create(rpc, stubs, request_id=request_id)
    assert create(rpc, stubs, request_id=request_id).id == job.id
    assert create(rpc, stubs, request_id=request_id.upper()).id == job.id
    error = refused(rpc.CreateJob, stubs.service.CreateJobRequest(spec=make_spec(stubs, seed=1), request_id=request_id))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert details(error)["ErrorInfo"].metadata["request_id"] == request_id
    watch(rpc, stubs, job.id)
    again = create(rpc, stubs, request_id=request_id)
    assert (again.id, again.state) == (job.id, stubs.job.Job.SUCCEEDED)


@pytest.mark.parametrize("method", ["GetJob", "CancelJob", "DeleteJob", "WatchJob", "GetHistory", "GetFrontier"])
def test_unknown_job(rpc, stubs, method):
    request = getattr(stubs.service, f"{method}Request")
    error = refused(getattr(rpc, method), request(id="jnosuchjob"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert details(error)["ErrorInfo"].reason == "JOB_NOT_FOUND"
    assert "jnosuchjob" in error.details()
    assert set(bad_fields(refused(getattr(rpc, method), request()))) == {"id"}


def test_other_bad_requests(rpc, stubs):
    service = stubs.service
    job = finished(rpc, stubs)
    for field, call, request in [
        ("after_sequence", rpc.WatchJob, service.WatchJobRequest(id=job.id, after_sequence=-1)),
        ("first_iteration", rpc.GetHistory, service.GetHistoryRequest(id=job.id, first_iteration=-1)),
        ("kind", rpc.GetFrontier, service.GetFrontierRequest(id=job.id, kind=9)),
        ("text", rpc.Tokenize, service.TokenizeRequest()),
        ("page_size", rpc.ListJobs, service.ListJobsRequest(page_size=-1)),
        ("page_token", rpc.ListJobs, service.ListJobsRequest(page_token="forged")),
        ("states[1]", rpc.ListJobs, service.ListJobsRequest(states=[1, 0])),
        ("states[0]", rpc.ListJobs, service.ListJobsRequest(states=[42])),
    ]:
        assert set(bad_fields(refused(call, request))) == {field}


def test_delete(rpc, stubs):
    service = stubs.service
    job = create(rpc, stubs, iterations=2000)
    error = refused(rpc.DeleteJob, service.DeleteJobRequest(id=job.id))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert details(error)["ErrorInfo"].reason == "JOB_NOT_ENDED"
    rpc.CancelJob(service.CancelJobRequest(id=job.id))
    rpc.DeleteJob(service.DeleteJobRequest(id=job.id))
    assert refused(rpc.GetJob, service.GetJobRequest(id=job.id)).code() == grpc.StatusCode.NOT_FOUND
    assert refused(rpc.GetHistory, service.GetHistoryRequest(id=job.id)).code() == grpc.StatusCode.NOT_FOUND


def test_cancel_keeps_what_was_found(rpc, stubs):
    service = stubs.service
    job = create(rpc, stubs, iterations=100_000)
    stream = rpc.WatchJob(service.WatchJobRequest(id=job.id))
    updates = [next(stream) for _ in range(4)]
    cancelled = rpc.CancelJob(service.CancelJobRequest(id=job.id), timeout=30)
    assert cancelled.state == stubs.job.Job.CANCELLED
    assert cancelled.completed_iterations >= 3
    updates += list(stream)
    assert updates[-1].ended == cancelled
    # A heartbeat that the cancellation caused may come between.
    steps = [u.sequence for u in updates if not u.HasField("heartbeat")]
    assert steps == list(range(cancelled.completed_iterations + 2))
    history = list(rpc.GetHistory(service.GetHistoryRequest(id=job.id)))
    assert len(history) == cancelled.completed_iterations
    error = refused(rpc.CancelJob, service.CancelJobRequest(id=job.id))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert details(error)["ErrorInfo"].metadata["state"] == "CANCELLED"


def test_resume_after_a_sequence_number(rpc, stubs):
    job = create(rpc, stubs, iterations=40)
    whole = watch(rpc, stubs, job.id)
    assert [u.sequence for u in whole] == list(range(42))
    for after in (1, 17, 39, 40):
        created, *rest = watch(rpc, stubs, job.id, after=after)
        assert created.WhichOneof("update") == "created"
        assert rest == whole[after + 1:]
    for after in (41, 10**12, 2**63 - 1):
        created, ended = watch(rpc, stubs, job.id, after=after)
        assert created.HasField("created") and ended == whole[-1]


def test_leaving_a_watch_does_not_cancel(rpc, stubs):
    job = create(rpc, stubs, iterations=30)
    for _ in range(5):
        stream = rpc.WatchJob(stubs.service.WatchJobRequest(id=job.id))
        next(stream)
        stream.cancel()
    assert watch(rpc, stubs, job.id)[-1].ended.state == stubs.job.Job.SUCCEEDED


def test_a_watcher_that_stops_reading_delays_nobody(rpc, stubs):
    job = create(rpc, stubs, population=16, children_per_parent=2, iterations=600)
    stalled = rpc.WatchJob(stubs.service.WatchJobRequest(id=job.id))
    assert next(stalled).HasField("created")
    whole = watch(rpc, stubs, job.id)
    assert sum(u.ByteSize() for u in whole) > 500_000, "the transport's buffers could hold it all"
    assert whole[-1].ended.state == stubs.job.Job.SUCCEEDED
    assert [u for u in stalled] == whole[1:]


def test_many_watchers_see_the_same(rpc, stubs):
    job = create(rpc, stubs, iterations=20)
    streams = [rpc.WatchJob(stubs.service.WatchJobRequest(id=job.id)) for _ in range(100)]
    updates = [[u for u in stream if not u.HasField("created")] for stream in streams]
    assert [u.sequence for u in updates[0]] == list(range(1, 22))
    assert all(each == updates[0] for each in updates)


def test_pages(module_server, root, stubs):
    rpc = module_server(root / "tests/parity/phi-tiny").stub
    ids = [create(rpc, stubs, iterations=1).id for _ in range(7)]
    for job_id in ids:
        watch(rpc, stubs, job_id)
    seen, sizes, token = [], [], ""
    while True:
        page = rpc.ListJobs(stubs.service.ListJobsRequest(page_size=3, page_token=token))
        seen += [job.id for job in page.jobs]
        sizes.append(len(page.jobs))
        token = page.next_page_token
        if not token:
            break
    assert seen == ids[::-1]
    assert sizes == [3, 3, 1]
    assert len(rpc.ListJobs(stubs.service.ListJobsRequest(page_size=10**9)).jobs) == 7
    assert not rpc.ListJobs(stubs.service.ListJobsRequest(states=[stubs.job.Job.RUNNING])).jobs
    assert len(rpc.ListJobs(stubs.service.ListJobsRequest(states=[stubs.job.Job.SUCCEEDED])).jobs) == 7


def test_message_over_the_limit(rpc, stubs):
    error = refused(rpc.Tokenize, stubs.service.TokenizeRequest(text="x" * (5 << 20)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194304" in error.details()
    assert rpc.Tokenize(stubs.service.TokenizeRequest(text="still here")).tokens


def test_health_and_reflection(running):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    health = health_pb2_grpc.HealthStub(running.channel)
    for service in ("", "epo.v1.EpoService"):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    reply = next(reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
    names = {s.name for s in reply.list_services_response.service}
    assert {"epo.v1.EpoService", "grpc.health.v1.Health"} <= names


def test_idle_watch_gets_heartbeats(rpc, stubs):
    # Behind more jobs than are active at a time, the last one waits in the queue.
    blockers = [create(rpc, stubs, iterations=10**6).id for _ in range(64)]
    last = create(rpc, stubs)
    try:
        stream = rpc.WatchJob(stubs.service.WatchJobRequest(id=last.id), timeout=60)
        assert next(stream).created.state == stubs.job.Job.QUEUED
        begin = time.monotonic()
        assert next(stream).HasField("heartbeat")
        assert 10 < time.monotonic() - begin < 20
    finally:
        cancels = [rpc.CancelJob.future(stubs.service.CancelJobRequest(id=job_id)) for job_id in blockers]
        assert {c.result().state for c in cancels} == {stubs.job.Job.CANCELLED}
    assert [u.sequence for u in stream if not u.HasField("heartbeat")] == list(range(1, 7))
