"""Sweeps on real servers: many jobs from one request, their frontiers together, one cancellation, one deletion."""

import csv
import io
import json
import re
import subprocess
import time
import urllib.request
import uuid

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

SMALL = {"tokens": 6, "population": 2, "children_per_parent": 4, "top_k": 16, "iterations": 5}
SMALL_FLAGS = ["--tokens", 6, "--population", 2, "--children", 4, "--topk", 16]
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


@pytest.fixture(scope="module")
def phi(module_server, root):
    return module_server(root / "tests/parity/phi-tiny")


def sweep_request(stubs, ranges, seeds=(), objectives=(), request_id="", **fields):
    spec = stubs.sweep.SweepSpec(job=stubs.job.JobSpec(**{**SMALL, **fields}), seeds=seeds)
    for layer, first, last in ranges:
        spec.neurons.add(layer=layer, first=first, last=last)
    for layer, neuron in objectives:
        spec.objectives.add().neuron.MergeFrom(stubs.objective.NeuronObjective(layer=layer, neuron=neuron))
    return stubs.service.CreateSweepRequest(spec=spec, request_id=request_id)


def create(running, stubs, *args, **kwargs):
    return running.stub.CreateSweep(sweep_request(stubs, *args, **kwargs), timeout=60)


def get(running, stubs, sweep_id):
    return running.stub.GetSweep(stubs.service.GetSweepRequest(id=sweep_id), timeout=30)


def state(stubs, sweep):
    return stubs.sweep.Sweep.State.Name(sweep.state)


def wait_for(running, stubs, sweep_id, condition, timeout=300):
    deadline = time.monotonic() + timeout
    while not condition(sweep := get(running, stubs, sweep_id)):
        assert time.monotonic() < deadline, sweep
        time.sleep(0.05)
    return sweep


def finish(running, stubs, sweep_id):
    return wait_for(running, stubs, sweep_id, lambda sweep: state(stubs, sweep) in ENDED)


def jobs_of(running, stubs, sweep_id):
    """The sweep's jobs by their index, from one page."""
    page = running.stub.ListJobs(stubs.service.ListJobsRequest(sweep=sweep_id, page_size=1000), timeout=60)
    assert page.next_page_token == ""
    jobs = list(page.jobs)[::-1]
    assert [job.sweep_index for job in jobs] == list(range(len(jobs)))
    assert {job.sweep for job in jobs} == {sweep_id}
    return jobs


def history(running, stubs, job_id):
    return list(running.stub.GetHistory(stubs.service.GetHistoryRequest(id=job_id), timeout=120))


def frontiers(running, stubs, sweep_id, kind, first=0):
    request = stubs.service.GetSweepFrontierRequest(id=sweep_id, kind=kind, first_objective=first)
    return list(running.stub.GetSweepFrontier(request, timeout=120))


def candidates(running, stubs, jobs):
    """(ids, target, cross-entropy, job, seed) of all that the jobs scored, in their order."""
    for job in jobs:
        for step in history(running, stubs, job.id):
            for ids, target, cross_entropy in zip(step.ids, step.target, step.cross_entropy):
                yield tuple(ids.ids), target, cross_entropy, job.id, job.spec.seed


def pareto(scored):
    """{(ids, target, cross-entropy): (job, seed)} of what nothing dominates, with the first that found it."""
    first = {}
    for ids, target, cross_entropy, job, seed in scored:
        first.setdefault((ids, target, cross_entropy), (job, seed))
    target = np.array([t for _, t, _ in first])
    cross_entropy = np.array([x for _, _, x in first])
    kept = {}
    for key, source in first.items():
        _, f, x = key
        if not np.any((target >= f) & (cross_entropy <= x) & ((target > f) | (cross_entropy < x))):
            kept[key] = source
    return kept


def penalty_frontier(scored):
    scored = list(scored)
    target = np.array([s[1] for s in scored], dtype=np.float64)
    cross_entropy = np.array([s[2] for s in scored], dtype=np.float64)
    chosen = {int(np.argmin(-target + penalty * cross_entropy)) for penalty in 1 / np.linspace(0, 50, 1000)[1:]}
    return {scored[i][:3]: scored[i][3:] for i in chosen}


def points_of(frontier):
    points = {(tuple(p.prompt.ids), p.prompt.target, p.prompt.cross_entropy): (p.job, p.seed) for p in frontier.points}
    assert len(points) == len(frontier.points)
    entropies = [p.prompt.cross_entropy for p in frontier.points]
    assert entropies == sorted(entropies)
    return points


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    blob = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(blob).details:
        detail.Unpack(info) or detail.Unpack(bad)
    return caught.value.code(), info, {v.field: v.description for v in bad.field_violations}


def metric(running, name):
    (address,) = re.findall(r"metrics on (http://\S+/metrics)", running.log())
    with urllib.request.urlopen(address, timeout=30) as reply:
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", reply.read().decode(), re.M)
    return float(value)


def test_neurons_times_seeds(server, stubs, smollm2_dir):
    running = server(smollm2_dir)
    sweep = create(running, stubs, [(8, 0, 2)], seeds=[3, 0], objectives=[(4, 1)], iterations=4, tokens=5, children_per_parent=3)
    assert re.fullmatch(r"sweep-[a-z0-9]+", sweep.id) and state(stubs, sweep) == "QUEUED"
    assert (sweep.objective_count, sweep.seed_count, sweep.total_iterations, sweep.jobs.queued) == (4, 2, 32, 8)
    assert sweep.spec.job.restart_period == 50 and not sweep.spec.job.HasField("objective") and not sweep.spec.job.HasField("seed")
    ended = finish(running, stubs, sweep.id)
    assert state(stubs, ended) == "SUCCEEDED" and ended.jobs.succeeded == 8 and ended.completed_iterations == 32
    jobs = jobs_of(running, stubs, sweep.id)
    assert ended.evaluations == sum(j.evaluations for j in jobs) == 8 * 4 * 8
    assert ended.end_time == max((j.end_time for j in jobs), key=lambda t: t.ToNanoseconds())
    assert ended.start_time == min((j.start_time for j in jobs), key=lambda t: t.ToNanoseconds())
    searched = [(j.spec.objective.neuron.layer, j.spec.objective.neuron.neuron, j.spec.seed) for j in jobs]
    assert searched == [(layer, neuron, seed) for layer, neuron in ((4, 1), (8, 0), (8, 1), (8, 2)) for seed in (3, 0)]

    # They are ordinary jobs: read, watched and searched as one that came alone.
    job = jobs[5]
    assert running.stub.GetJob(stubs.service.GetJobRequest(id=job.id)) == job
    updates = list(running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=60))
    assert [u.sequence for u in updates] == [0, 1, 2, 3, 4, 5] and updates[-1].ended == job
    alone = running.stub.CreateJob(stubs.service.CreateJobRequest(spec=job.spec))
    list(running.stub.WatchJob(stubs.service.WatchJobRequest(id=alone.id), timeout=120))
    assert history(running, stubs, alone.id) == history(running, stubs, job.id)
    assert alone.sweep == "" and alone.id not in [j.id for j in jobs_of(running, stubs, sweep.id)]

    merged = frontiers(running, stubs, sweep.id, stubs.frontier.PARETO)
    fluent = frontiers(running, stubs, sweep.id, stubs.frontier.FRONTIER_KIND_UNSPECIFIED)
    assert [f.objective_index for f in merged] == [f.objective_index for f in fluent] == [0, 1, 2, 3]
    seeds = set()
    for i, (whole, chosen) in enumerate(zip(merged, fluent)):
        assert whole.objective == chosen.objective == jobs[2 * i].spec.objective and whole.ended_jobs == 2
        scored = list(candidates(running, stubs, jobs[2 * i : 2 * i + 2]))
        assert len(scored) == 64
        # In float32 a prompt may have two scores, as a child and as a parent, of which the frontier keeps one.
        expected = pareto(scored)
        assert points_of(whole).items() <= expected.items()
        assert {ids for ids, _, _ in points_of(whole)} == {ids for ids, _, _ in expected}
        assert points_of(chosen) == penalty_frontier(scored)
        assert all(p.prompt.text for p in whole.points)
        seeds |= {seed for _, seed in points_of(whole).values()}
    assert seeds == {0, 3}
    assert frontiers(running, stubs, sweep.id, stubs.frontier.PARETO, first=2) == merged[2:]
    assert frontiers(running, stubs, sweep.id, stubs.frontier.PARETO, first=4) == []


def test_frontier_histories_merge_to_the_same(server, stubs, tiny):
    # In float64 a prompt has one score.
    running = server(tiny, dtype="float64")
    arguments = dict(ranges=[(2, 5, 6)], seeds=[1, 2, 3], iterations=30)
    full = create(running, stubs, **arguments)
    reduced = create(running, stubs, **arguments, history=stubs.job.FRONTIER)
    for sweep in (full, reduced):
        assert state(stubs, finish(running, stubs, sweep.id)) == "SUCCEEDED"
    for kind in (stubs.frontier.PARETO, stubs.frontier.LAMBDA):
        of_full, of_reduced = (
            [[(p.seed, p.prompt) for p in f.points] for f in frontiers(running, stubs, sweep.id, kind)] for sweep in (full, reduced)
        )
        assert of_full == of_reduced and all(of_full)
    jobs = jobs_of(running, stubs, full.id)
    for i, merged in enumerate(frontiers(running, stubs, full.id, stubs.frontier.PARETO)):
        assert points_of(merged) == pareto(candidates(running, stubs, jobs[3 * i : 3 * i + 3]))
        assert len({seed for _, seed in points_of(merged).values()}) > 1, "merging them would not be seen"


def test_a_cancellation_ends_all_and_a_deletion_takes_all(server, stubs, tiny):
    running = server(tiny, "--max-concurrent-jobs", "3")
    other = create(running, stubs, [(1, 1, 1)], iterations=100_000)
    done = create(running, stubs, [(1, 2, 2)], iterations=2)
    finish(running, stubs, done.id)
    sweep = create(running, stubs, [(2, 0, 19)], iterations=100_000)
    wait_for(running, stubs, sweep.id, lambda s: s.completed_iterations > 3)
    assert [s.id for s in running.stub.ListSweeps(stubs.service.ListSweepsRequest()).sweeps] == [sweep.id, done.id, other.id]
    first, *rest = jobs_of(running, stubs, sweep.id)
    code, info, _ = refused(running.stub.DeleteSweep, stubs.service.DeleteSweepRequest(id=sweep.id))
    assert (code, info.reason, info.metadata["state"]) == (grpc.StatusCode.FAILED_PRECONDITION, "SWEEP_NOT_ENDED", "RUNNING")
    running.stub.CancelJob(stubs.service.CancelJobRequest(id=first.id))
    start = time.monotonic()
    cancelled = running.stub.CancelSweep(stubs.service.CancelSweepRequest(id=sweep.id), timeout=60)
    assert time.monotonic() - start < 5
    assert state(stubs, cancelled) == "CANCELLED" and cancelled.jobs.cancelled == 20
    steps = cancelled.completed_iterations
    other_steps = get(running, stubs, other.id).completed_iterations
    wait_for(running, stubs, other.id, lambda s: s.completed_iterations > other_steps + 5)
    assert get(running, stubs, sweep.id).completed_iterations == steps > 3
    code, info, _ = refused(running.stub.CancelSweep, stubs.service.CancelSweepRequest(id=sweep.id))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SWEEP_ENDED")
    # One line of the end, not twenty.
    assert len(re.findall(rf"{sweep.id} CANCELLED: 0 jobs succeeded, 0 failed, 20 cancelled", running.log())) == 1
    assert all(f"job {job.id} CANCELLED" not in running.log() for job in rest)

    code, info, _ = refused(running.stub.DeleteJob, stubs.service.DeleteJobRequest(id=first.id))
    assert (code, info.reason, info.metadata["sweep"]) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_OF_SWEEP", sweep.id)
    running.stub.DeleteSweep(stubs.service.DeleteSweepRequest(id=sweep.id))
    for call, message in (
        (running.stub.GetSweep, stubs.service.GetSweepRequest(id=sweep.id)),
        (running.stub.CancelSweep, stubs.service.CancelSweepRequest(id=sweep.id)),
        (running.stub.DeleteSweep, stubs.service.DeleteSweepRequest(id=sweep.id)),
        (running.stub.ListJobs, stubs.service.ListJobsRequest(sweep=sweep.id)),
        (running.stub.GetJob, stubs.service.GetJobRequest(id=first.id)),
        (lambda request, timeout: list(running.stub.GetSweepFrontier(request, timeout=timeout)),
         stubs.service.GetSweepFrontierRequest(id=sweep.id)),
    ):
        assert refused(call, message)[0] == grpc.StatusCode.NOT_FOUND
    assert len(jobs_of(running, stubs, done.id)) == 1


def test_all_finish_after_a_kill(server, stubs, tiny):
    running = server(tiny, "--max-concurrent-jobs", "4", dtype="float64")
    arguments = dict(ranges=[(2, 0, 9)], seeds=[0, 1], iterations=25)
    sweep = create(running, stubs, **arguments)
    for jobs_ended in (3, 9):
        wait_for(running, stubs, sweep.id, lambda s: s.jobs.succeeded >= jobs_ended)
        running.kill()
        running = server(tiny, "--max-concurrent-jobs", "4", dtype="float64", state_dir=running.state_dir)
        assert get(running, stubs, sweep.id).jobs.succeeded < 20, "nothing was left to finish"
    ended = finish(running, stubs, sweep.id)
    assert state(stubs, ended) == "SUCCEEDED" and ended.jobs.succeeded == 20 and ended.completed_iterations == 500
    whole = create(running, stubs, **arguments)
    finish(running, stubs, whole.id)
    for killed, smooth in zip(jobs_of(running, stubs, sweep.id), jobs_of(running, stubs, whole.id), strict=True):
        assert killed.spec == smooth.spec
        assert history(running, stubs, killed.id) == history(running, stubs, smooth.id)


def test_a_repeat_gets_the_first_sweep(phi, stubs):
    request = sweep_request(stubs, [(2, 0, 3)], seeds=[1, 2], request_id=str(uuid.uuid4()))
    first = phi.stub.CreateSweep(request)
    finish(phi, stubs, first.id)
    jobs = jobs_of(phi, stubs, first.id)
    again = phi.stub.CreateSweep(request)
    assert again == get(phi, stubs, first.id) and again.jobs.succeeded == 8
    assert jobs_of(phi, stubs, first.id) == jobs
    request.spec.seeds.append(3)
    code, info, _ = refused(phi.stub.CreateSweep, request)
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def test_a_thousand_jobs_are_one_transaction_and_one_page(server, stubs, tiny):
    running = server(tiny, "--max-concurrent-jobs", "2")
    start = time.monotonic()
    sweep = create(running, stubs, [(1, 0, 199)], seeds=range(5), iterations=100_000)
    created = time.monotonic() - start
    assert metric(running, 'epo_store_commit_duration_seconds_count{kind="create"}') == 1
    assert metric(running, "epo_jobs_created_total") == 1000
    assert len(re.findall(r" created: ", running.log())) == 1
    wait_for(running, stubs, sweep.id, lambda s: s.jobs.running == 2)
    start = time.monotonic()
    jobs = jobs_of(running, stubs, sweep.id)
    listed = time.monotonic() - start
    assert len(jobs) == 1000
    assert sorted(j.queue_position for j in jobs) == [0, *range(999)]
    wait_for(running, stubs, sweep.id, lambda s: s.completed_iterations > 10)
    updates = metric(running, 'epo_store_commit_duration_seconds_count{kind="update"}')
    start = time.monotonic()
    cancelled = running.stub.CancelSweep(stubs.service.CancelSweepRequest(id=sweep.id), timeout=60)
    ended = time.monotonic() - start
    assert cancelled.jobs.cancelled == 1000
    assert metric(running, 'epo_store_commit_duration_seconds_count{kind="update"}') == updates + 1
    assert metric(running, 'epo_jobs_ended_total{reason="cancelled",state="cancelled"}') == 1000
    print(f"1000 jobs: created in {created:.2f} s, listed in {listed:.2f} s, cancelled in {ended:.2f} s")
    # A busy machine is slow; a thousand calls or syncs are slower.
    assert max(created, listed, ended) < 5
    running.stub.DeleteSweep(stubs.service.DeleteSweepRequest(id=sweep.id), timeout=60)
    assert list(running.stub.ListJobs(stubs.service.ListJobsRequest()).jobs) == []


def test_rows_of_an_uploaded_matrix(phi, stubs, epo, tmp_path, tiny):
    """Each row is an objective: the same job as one that names the row itself."""
    width = json.loads((tiny / "config.json").read_text())["hidden_size"]
    matrix = np.random.default_rng(3).normal(size=(4, width)).astype(np.float32)
    file = io.BytesIO()
    np.save(file, matrix)
    name = phi.stub.UploadVector(stubs.service.UploadVectorRequest(npy=file.getvalue()), timeout=60).name
    o = stubs.objective
    direction = lambda **vector: o.DirectionTerm(layer=1, point=o.POST_BLOCK, vector=o.Vector(name=name, **vector), standardized=True)

    def request(**how):
        request = sweep_request(stubs, [])
        request.spec.directions.add(**how)
        return request

    sweep = phi.stub.CreateSweep(request(direction=direction(), first_row=1, last_row=3), timeout=60)
    assert sweep.objective_count == 3
    wait_for(phi, stubs, sweep.id, lambda s: state(stubs, s) == "SUCCEEDED")
    merged = list(phi.stub.GetSweepFrontier(stubs.service.GetSweepFrontierRequest(id=sweep.id), timeout=60))
    for row, frontier in enumerate(merged, 1):
        assert frontier.objective.terms[0].direction.vector.row == row
        spec = stubs.job.JobSpec(objective=o.Objective(terms=[o.Term(direction=direction(row=row))]), **SMALL)
        job = phi.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec), timeout=60)
        list(phi.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=120))
        alone = phi.stub.GetFrontier(stubs.service.GetFrontierRequest(id=job.id), timeout=60).points
        assert [(list(p.prompt.ids), p.prompt.target) for p in frontier.points] == [(list(p.ids), p.target) for p in alone]

    for how, field in (
        ({"direction": direction(), "first_row": 2, "last_row": 4}, "spec.directions[0].last_row"),
        ({"direction": direction(row=1), "first_row": 0, "last_row": 1}, "spec.directions[0].direction.vector.row"),
        ({"direction": direction(), "first_row": -1, "last_row": 1}, "spec.directions[0].first_row"),
        ({"direction": direction(), "first_row": 2, "last_row": 1}, "spec.directions[0].last_row"),
        ({"direction": o.DirectionTerm(layer=1)}, "spec.directions[0].direction.vector.name"),
    ):
        code, _, bad = refused(phi.stub.CreateSweep, request(**how))
        assert code == grpc.StatusCode.INVALID_ARGUMENT and any(f.startswith(field) for f in bad), bad

    shown = epo("sweep", "--directions", f"{name}:0-3@1:post", "--standardized", *SMALL_FLAGS, "--wait", "-o", "json", server=phi,
                env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["objective_count"] == 4
    table = epo("frontier", found["id"], server=phi, env={"XDG_CONFIG_HOME": str(tmp_path)}).stdout
    assert all(f" {row}  layer 1:post standardised direction {name[:9]}…:{row} " in table for row in range(4))


def test_a_sweep_over_a_limit_is_refused_whole(server, stubs, tiny):
    running = server(tiny, "--max-sweep-jobs", "20", "--max-queued-jobs-per-client", "18", "--max-concurrent-jobs", "1")
    for ranges, seeds, field, named in (
        ([(1, 0, 20)], [], "spec.neurons", "at most 20 (--max-sweep-jobs)"),
        ([(1, 0, 9)], [0, 1, 2], "spec.seeds", "is 30 jobs, but this server takes at most 20 (--max-sweep-jobs)"),
        ([(1, 0, 18)], [], "spec.neurons", "at most 18 (--max-queued-jobs-per-client)"),
        ([(1, 250, 256)], [], "spec.neurons[0].last", "must be from 250 to 255"),
    ):
        code, _, bad = refused(running.stub.CreateSweep, sweep_request(stubs, ranges, seeds))
        assert code == grpc.StatusCode.INVALID_ARGUMENT and list(bad) == [field] and named in bad[field]
    first = create(running, stubs, [(1, 0, 9)], iterations=100_000)
    code, info, _ = refused(running.stub.CreateSweep, sweep_request(stubs, [(1, 0, 9)]))
    assert (code, info.reason, info.metadata["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUEUED_JOBS", "18")
    assert [s.id for s in running.stub.ListSweeps(stubs.service.ListSweepsRequest()).sweeps] == [first.id]
    assert len(running.stub.ListJobs(stubs.service.ListJobsRequest()).jobs) == 10
    code, _, bad = refused(running.stub.ListSweeps, stubs.service.ListSweepsRequest(page_size=-1))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and list(bad) == ["page_size"]


def test_a_full_state_directory_takes_no_sweep(server, stubs, tiny):
    running = server(tiny, "--max-state-bytes", "1KiB")
    code, info, _ = refused(running.stub.CreateSweep, sweep_request(stubs, [(1, 0, 9)]))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STATE_LIMIT_REACHED")


def test_another_clients_sweep_does_not_exist(server, stubs, tiny, bin_dir, tmp_path):
    keys = {}
    lines = []
    for name in ("ann", "bob"):
        made = subprocess.run([bin_dir / "epo-server", "--new-api-key", f"{name}:submit"], check=True, text=True, capture_output=True)
        keys[name] = [("authorization", f"Bearer {re.search(r'epo_[A-Za-z0-9_-]+', made.stdout)[0]}")]
        lines.append(re.search(rf"^{name} .*$", made.stdout, re.M)[0])
    (tmp_path / "keys").write_text("\n".join(lines) + "\n")
    (tmp_path / "keys").chmod(0o600)
    running = server(tiny, "--api-keys", tmp_path / "keys")
    request = sweep_request(stubs, [(1, 0, 1)], iterations=100_000, request_id=str(uuid.uuid4()))
    sweep = running.stub.CreateSweep(request, metadata=keys["ann"])
    assert sweep.client == "ann"
    page = running.stub.ListJobs(stubs.service.ListJobsRequest(sweep=sweep.id), metadata=keys["ann"])
    assert [j.client for j in page.jobs] == ["ann", "ann"]
    for name, message in (
        ("GetSweep", stubs.service.GetSweepRequest(id=sweep.id)),
        ("CancelSweep", stubs.service.CancelSweepRequest(id=sweep.id)),
        ("DeleteSweep", stubs.service.DeleteSweepRequest(id=sweep.id)),
        ("ListJobs", stubs.service.ListJobsRequest(sweep=sweep.id)),
    ):
        call = getattr(running.stub, name)
        assert refused(lambda r, timeout: call(r, timeout=timeout, metadata=keys["bob"]), message)[0] == grpc.StatusCode.NOT_FOUND
    frontier = stubs.service.GetSweepFrontierRequest(id=sweep.id)
    read = lambda r, timeout: list(running.stub.GetSweepFrontier(r, timeout=timeout, metadata=keys["bob"]))
    assert refused(read, frontier)[0] == grpc.StatusCode.NOT_FOUND
    assert not running.stub.ListSweeps(stubs.service.ListSweepsRequest(), metadata=keys["bob"]).sweeps
    assert running.stub.CreateSweep(request, metadata=keys["bob"]).id != sweep.id
    assert running.stub.CancelSweep(stubs.service.CancelSweepRequest(id=sweep.id), metadata=keys["ann"]).jobs.cancelled == 2


def test_a_sweep_is_kept_until_its_last_job_is_old(server, stubs, tiny):
    running = server(tiny, "--retention", "3s")
    sweep = create(running, stubs, [(1, 0, 1)])
    live = create(running, stubs, [(1, 2, 3)], iterations=100_000)
    finish(running, stubs, sweep.id)
    first = jobs_of(running, stubs, live.id)[0].id
    running.stub.CancelJob(stubs.service.CancelJobRequest(id=first))
    deadline = time.monotonic() + 60
    with pytest.raises(grpc.RpcError) as caught:
        while time.monotonic() < deadline:
            get(running, stubs, sweep.id)
            time.sleep(0.1)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    time.sleep(4)
    assert [j.id for j in jobs_of(running, stubs, live.id)][0] == first


# The command line


@pytest.fixture
def cli(epo, phi, tmp_path):
    def run(*args, **kwargs):
        return epo(*args, server=phi, env={"XDG_CONFIG_HOME": str(tmp_path)}, **kwargs)

    return run


def test_the_command_line(cli, phi, stubs):
    flags = ["--neurons", "2:5-6", "--neurons", "1:3", "--seeds", "0-1,7", *SMALL_FLAGS]
    made = cli("sweep", *flags, "--iterations", 4)
    assert made.returncode == 0, made.stderr
    sweep_id = made.stdout.strip()
    assert re.fullmatch(r"sweep-[a-z0-9]+", sweep_id)
    assert made.stderr == f"submitted 9 jobs, 3 objectives x 3 seeds; epo watch {sweep_id} follows it\n"
    waited = cli("wait", sweep_id, "-o", "json")
    assert waited.returncode == 0 and json.loads(waited.stdout)["state"] == "SUCCEEDED"
    assert f"{sweep_id} SUCCEEDED after 36/36 steps of 9 jobs" in waited.stderr
    assert json.loads(cli("get", sweep_id, "-o", "json").stdout) == json.loads(waited.stdout)
    shown = cli("get", sweep_id).stdout
    assert "3 objectives x 3 seeds" in shown and "9 succeeded" in shown
    listed = cli("sweeps").stdout.splitlines()
    assert listed[0].split() == ["sweep", "state", "step", "age", "size", "jobs"]
    assert listed[1].startswith(sweep_id) and "36/36" in listed[1]
    assert json.loads(cli("sweeps", "--limit", 1, "-o", "json").stdout)["sweeps"][0]["id"] == sweep_id
    children = [json.loads(line) for line in cli("list", "--sweep", sweep_id, "-o", "jsonl").stdout.splitlines()]
    assert [c["sweep_index"] for c in children] == list(range(8, -1, -1))
    assert f"sweep        {sweep_id}, job 8 of it" in cli("get", children[0]["id"]).stdout

    # One table in every format.
    wire = frontiers(phi, stubs, sweep_id, stubs.frontier.LAMBDA)
    expected = [(f.objective_index, f.objective.neuron.neuron, p.job, p.seed, list(p.prompt.ids), p.prompt.target, p.prompt.cross_entropy)
                for f in wire for p in f.points]
    rows = json.loads(cli("frontier", sweep_id, "-o", "json").stdout)["points"]
    assert [json.loads(line) for line in cli("frontier", sweep_id, "-o", "jsonl").stdout.splitlines()] == rows

    def read(row, neuron, ids):
        return (int(row["objective_index"]), neuron, row["job"], int(row["seed"]), ids, float(np.float32(row["target"])),
                float(np.float32(row["cross_entropy"])))

    assert [read(r, r["objective"]["neuron"]["neuron"], r["ids"]) for r in rows] == expected
    table = list(csv.DictReader(io.StringIO(cli("frontier", sweep_id, "-o", "csv").stdout)))
    assert [read(r, int(r["objective"].split()[-1]), [int(i) for i in r["ids"].split()]) for r in table] == expected
    assert {r["objective"] for r in table} == {"layer 2 neuron 5", "layer 2 neuron 6", "layer 1 neuron 3"}
    lines = cli("frontier", sweep_id).stdout.splitlines()
    assert lines[0].split() == ["index", "objective", "seed", "target", "cross-entropy", "prompt"] and len(lines) == len(expected) + 1
    full = json.loads(cli("frontier", sweep_id, "--full", "-o", "json").stdout)["points"]
    assert len(full) == sum(len(f.points) for f in frontiers(phi, stubs, sweep_id, stubs.frontier.PARETO))
    alone = list(csv.DictReader(io.StringIO(cli("frontier", children[0]["id"], "-o", "csv").stdout)))
    assert list(alone[0]) == ["target", "cross_entropy", "text", "ids", "round_trips"]
    # Texts are as they are, but that this process reads each kind of line break as one.
    assert [(r["text"], r["round_trips"]) for r in table] == [
        (re.sub("\r\n?", "\n", p.prompt.text), str(p.prompt.round_trips).lower()) for f in wire for p in f.points
    ]

    watched = cli("watch", sweep_id)
    assert watched.returncode == 0 and watched.stdout.splitlines() == lines
    deleted = cli("delete", sweep_id)
    assert (deleted.returncode, deleted.stdout) == (0, "")
    assert cli("get", sweep_id).returncode == 64 + 5
    assert cli("get", children[0]["id"]).returncode == 64 + 5


def test_the_command_line_says_how_objectives_are_read(cli, tmp_path):
    def specs(*flags):
        made = cli("sweep", *flags, *SMALL_FLAGS, "--iterations", 1)
        assert made.returncode == 0, made.stderr
        listed = cli("list", "--sweep", made.stdout.strip(), "-o", "jsonl").stdout.splitlines()
        return [json.loads(line)["spec"] for line in reversed(listed)]

    file = tmp_path / "objective.json"
    file.write_text('{"terms": [{"neuron": {"layer": 1}, "weight": 2}]}')
    found = specs("--objective", file, "--objective", file, "--neurons", "2:5-6", "--prefix", "a", "--prefix", "b", "--suffix", "c", "--bos",
                  "--across", "min", "--count-suffix")
    assert [(s["objective"].get("neuron") or s["objective"]["terms"][0]["neuron"])["neuron"] for s in found] == [0, 0, 5, 6]
    assert found[0]["objective"]["terms"][0]["weight"] == 2
    for spec in found:
        assert [(c["prefix"], c["suffix"], c["bos"]) for c in spec["contexts"]] == [({"text": p}, {"text": "c"}, True) for p in "ab"]
        assert (spec["across_contexts"], spec["fluency_window"]) == ("MIN", "PROMPT_AND_SUFFIX")
    found = specs("--neurons", "2:5-6", "--minimize", "--position", "max")
    assert [s["objective"]["goal"] for s in found] == ["MINIMIZE"] * 2
    assert [s["objective"]["terms"][0]["neuron"]["neuron"] for s in found] == [5, 6]
    assert all(s["objective"]["terms"][0]["position"]["max"] for s in found)


def test_the_command_line_watches_and_cancels(cli, bin_dir, phi):
    command = [bin_dir / "epo", "sweep", "--neurons", "2:0-3", *SMALL_FLAGS, "--iterations", 100_000, "--watch", "-o", "jsonl",
               "--server", phi.address]
    with subprocess.Popen([*map(str, command)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = later = json.loads(process.stdout.readline())
        # Its state may change before its first step is done.
        while later["completed_iterations"] <= first["completed_iterations"]:
            later = json.loads(process.stdout.readline())
        assert later["total_iterations"] == 400_000
        sweep_id = first["id"]
        process.terminate()
        assert process.wait(timeout=20) == 8
        assert f"{sweep_id} goes on; epo watch {sweep_id} to come back" in process.stderr.read()
    assert json.loads(cli("get", sweep_id, "-o", "json").stdout)["jobs"]["cancelled"] == 0
    cancelled = cli("cancel", sweep_id)
    assert cancelled.returncode == 0 and "4 cancelled" in cancelled.stdout
    assert cli("cancel", sweep_id).returncode == 64 + 9
    for command in ("watch", "wait"):
        ended = cli(command, sweep_id)
        assert ended.returncode == 3 and f"{sweep_id} CANCELLED after" in ended.stderr


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (["--neurons", "2:0-300"], 67, "--neurons (spec.neurons[0].last): is 300, but must be from 0 to 255"),
        (["--neurons", "2:0-255", "--seeds", "0-99"], 67, "--seeds (spec.seeds): times 256 objectives is 25600 jobs"),
        (["--neurons", "2:1", "--seeds", "1,1"], 67, "--seeds (spec.seeds[1]): is 1, as is seeds[0]"),
        (["--neurons", "2:1", "--topk", "0"], 67, "--topk (spec.job.top_k)"),
        (["--neurons", "2:1", "--initial-ids", "999999"], 67, "--initial-ids (spec.job.initial_prompts[0])"),
        (["--neurons", "2"], 2, "--neurons: '2' is not LAYER:NEURONS"),
        (["--neurons", "2:1", "--seeds", "x"], 2, "--seeds: 'x' is neither seeds nor a range"),
        (["--neurons", "2:1", "--seed", "1"], 2, "--seed"),
        ([], 2, "--neurons, --directions or --objective is required"),
        (["--neurons", "2:1", "--standardized"], 2, "--standardized: is said of --directions"),
        (["--neurons", "2:1", "--across", "min"], 2, "--across: is said of contexts"),
        (["--objective", "/tmp"], 2, "--objective: /tmp: cannot be read: Is a directory"),
        (["--neurons", "2:0-999999", "--minimize"], 2, "--minimize: is said of 1000000 objectives"),
        (["--neurons", "2:1-2", "--position", "99"], 67, "--position (spec.objectives[0].terms[0].position"),
        (["--neurons", "99:1-2", "--minimize"], 67, "--neurons (spec.objectives[0].neuron.layer): is 99"),
        (["--neurons", "2:1", "--prefix", "a " * 9000], 67, "--prefix (spec.job.contexts[0].prefix"),
        (["--neurons", "2:1", "-o", "csv"], 2, "-o csv is for epo frontier alone"),
    ],
)
def test_what_sweep_refuses(cli, flags, code, message):
    result = cli("sweep", *flags)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr.splitlines()[0]


@pytest.mark.parametrize("command", ["get", "watch", "wait", "cancel", "delete", "frontier"])
def test_unknown_sweep(cli, command):
    result = cli(command, "sweep-none")
    assert (result.returncode, result.stdout) == (64 + 5, "")
    assert len(result.stderr.splitlines()) == 1 and "sweep-none" in result.stderr


def test_a_watch_survives_a_restart(server, epo, bin_dir, tiny):
    running = server(tiny)
    command = [bin_dir / "epo", "sweep", "--neurons", "2:0-3", *SMALL_FLAGS, "--iterations", 3000, "--wait", "--server", running.address]
    with subprocess.Popen([*map(str, command)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        sweep_id = process.stderr.readline().split()[1].rstrip(":")
        time.sleep(1.5)
        running.kill()
        time.sleep(1.5)
        again = server(tiny, state_dir=running.state_dir, port=int(running.address.split(":")[1]))
        assert epo("cancel", sweep_id, server=again).returncode == 0
        assert process.wait(timeout=60) == 3
        told = process.stderr.read()
    assert "connection lost, trying again" in told and "connected again" in told
