"""What a real server keeps, for how long, and when it takes no more jobs."""

import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def request(stubs, request_id="", **fields):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    fields = {"population": 4, "children_per_parent": 16, "top_k": 16, "tokens": 6, "iterations": 20, **fields}
    return stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=objective, **fields), request_id=request_id)


def finish(running, stubs, **fields):
    job = running.stub.CreateJob(request(stubs, **fields))
    updates = list(running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=120))
    assert updates[-1].ended.state == stubs.job.Job.SUCCEEDED
    return updates[-1].ended


def history(running, stubs, job_id, first=0):
    return list(running.stub.GetHistory(stubs.service.GetHistoryRequest(id=job_id, first_iteration=first)))


def frontiers(running, stubs, job_id):
    kinds = stubs.frontier.LAMBDA, stubs.frontier.PARETO
    return [running.stub.GetFrontier(stubs.service.GetFrontierRequest(id=job_id, kind=kind)).SerializeToString() for kind in kinds]


def error(caught):
    """The error's code, its ErrorInfo and whether it says when to try again."""
    blob = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    details = status_pb2.Status.FromString(blob).details
    info = error_details_pb2.ErrorInfo()
    assert any(d.Unpack(info) for d in details)
    return caught.value.code(), info, any(d.TypeName() == "google.rpc.RetryInfo" for d in details)


def test_a_frontier_history_has_the_frontiers_of_a_full_one(server, stubs, tiny):
    running = server(tiny)
    fields = {"iterations": 60, "restart_period": 7, "seed": 9}
    full = finish(running, stubs, **fields)
    assert full.spec.history == stubs.job.FULL
    reduced = finish(running, stubs, history=stubs.job.FRONTIER, **fields)
    assert reduced.spec.history == stubs.job.FRONTIER
    expected = frontiers(running, stubs, full.id)
    assert frontiers(running, stubs, reduced.id) == expected
    assert all(expected)

    wholes, reduceds = history(running, stubs, full.id), history(running, stubs, reduced.id)
    assert len(wholes) == len(reduceds) == 60
    for whole, kept in zip(wholes, reduceds):
        assert len(whole.ids) == 4 + 4 * 16
        survivors = list(whole.keep)
        assert kept.index == whole.index and list(kept.keep) == [0, 1, 2, 3]
        assert [i.ids for i in kept.ids] == [whole.ids[m].ids for m in survivors]
        assert list(kept.target) == [whole.target[m] for m in survivors]
        assert list(kept.cross_entropy) == [whole.cross_entropy[m] for m in survivors]
    assert history(running, stubs, reduced.id, first=55) == reduceds[55:]


def test_a_frontier_history_survives_kills(server, stubs, tiny):
    first = server(tiny, dtype="float64")
    fields = {"iterations": 80, "seed": 2, "restart_period": 5}
    full = finish(first, stubs, **fields)
    expected = frontiers(first, stubs, full.id)
    job_id = first.stub.CreateJob(request(stubs, history=stubs.job.FRONTIER, **fields)).id
    running = first
    for stop_at in (10, 35):
        for update in running.stub.WatchJob(stubs.service.WatchJobRequest(id=job_id), timeout=60):
            if update.sequence >= stop_at:
                break
        running.kill()
        running = server(tiny, dtype="float64", state_dir=first.state_dir)
    list(running.stub.WatchJob(stubs.service.WatchJobRequest(id=job_id), timeout=120))
    assert frontiers(running, stubs, job_id) == expected


def test_an_unknown_history_mode_is_refused(server, stubs, tiny):
    running = server(tiny)
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.CreateJob(request(stubs, history=7))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "spec.history" in caught.value.details()


def test_ended_jobs_are_deleted_after_their_retention(server, stubs, tiny):
    running = server(tiny, "--retention", "3s")
    job = finish(running, stubs)
    live = running.stub.CreateJob(request(stubs, iterations=100_000)).id
    assert running.stub.GetJob(stubs.service.GetJobRequest(id=job.id)) == job
    deadline = time.monotonic() + 60
    with pytest.raises(grpc.RpcError) as caught:
        while time.monotonic() < deadline:
            running.stub.GetJob(stubs.service.GetJobRequest(id=job.id))
            time.sleep(0.1)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert f"job {job.id} deleted" in running.log()
    assert running.stub.GetJob(stubs.service.GetJobRequest(id=live)).state == stubs.job.Job.RUNNING


def test_a_full_state_directory_takes_no_more_jobs(server, stubs, tiny):
    running = server(tiny, "--max-state-bytes", "150KiB")
    repeated = "00000000-0000-4000-8000-000000000001"
    first = running.stub.CreateJob(request(stubs, request_id=repeated, iterations=100_000))
    with pytest.raises(grpc.RpcError) as caught:
        while True:
            running.stub.CreateJob(request(stubs))
            time.sleep(0.02)
    code, info, _ = error(caught)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (info.reason, info.metadata["limit"]) == ("STATE_LIMIT_REACHED", str(150 << 10))
    # Whoever asks again for what was accepted is told so; what runs goes on.
    assert running.stub.CreateJob(request(stubs, request_id=repeated, iterations=100_000)).id == first.id
    done = running.stub.GetJob(stubs.service.GetJobRequest(id=first.id)).completed_iterations
    for update in running.stub.WatchJob(stubs.service.WatchJobRequest(id=first.id, after_sequence=done), timeout=60):
        if update.sequence > done + 2:
            break


def test_jobs_leave_the_disk_its_reserve(server, stubs, tiny):
    running = server(tiny, "--min-free-bytes", "8000TiB")
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.CreateJob(request(stubs))
    code, info, _ = error(caught)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info.reason == "DISK_ALMOST_FULL"
    assert int(info.metadata["bytes"]) < int(info.metadata["limit"]) == 8000 << 40


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--retention", "-1h"), ("--retention", "30"), ("--retention", "soon"), ("--max-state-bytes", "-1"),
        ("--max-state-bytes", "9GB"), ("--min-free-bytes", "9999999999GiB"),
    ],
)
def test_bad_values_are_named(server, tiny, flag, value):
    running = server(tiny, f"{flag}={value}", wait=False)
    assert running.process.wait(30) == 2
    (line,) = running.log().splitlines()
    assert flag in line and value in line
