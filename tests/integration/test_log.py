"""The server's log as a machine reads it."""

import json
import re
import shutil

import grpc
import pytest

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def tiny(root):
    return root / "tests/parity/phi-tiny"


def create(running, stubs, traceparent):
    objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
    spec = stubs.job.JobSpec(objective=objective, population=2, children_per_parent=4, top_k=16, tokens=6, iterations=3)
    return running.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec), metadata=[("traceparent", traceparent)])


def follow(running, stubs, job):
    return list(running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=120))[-1]


def test_json_lines_have_the_job_and_the_trace(server, stubs, tiny):
    running = server(tiny, "--log-format", "json")
    traced = create(running, stubs, TRACE)
    follow(running, stubs, traced)
    forged = create(running, stubs, TRACE.upper())
    follow(running, stubs, forged)
    running.stub.DeleteJob(stubs.service.DeleteJobRequest(id=traced.id), metadata=[("traceparent", TRACE)])
    assert running.stop() == 0

    events = [json.loads(line) for line in running.log().splitlines()]
    for event in events:
        assert list(event)[:3] == ["time", "level", "message"] and event["level"] in ("info", "warning")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:?\d\d", event["time"])
        # Whatever names a job has it as a field.
        named = re.search(r"\bj[a-z2-7]{12}\b", event["message"])
        assert event.get("job") == (named and named[0])
        assert event.get("traceparent") == (TRACE if event.get("job") == traced.id else None)
    of_traced = [event["message"].split()[2] for event in events if event.get("job") == traced.id]
    assert of_traced == ["created:", "runs", "SUCCEEDED", "deleted"]


def test_text_lines_have_the_trace(server, stubs, tiny):
    running = server(tiny)
    job = create(running, stubs, TRACE)
    follow(running, stubs, job)
    assert running.stop() == 0
    lines = [line for line in running.log().splitlines() if job.id in line]
    assert len(lines) == 3
    assert all(line.endswith(f" traceparent={TRACE}") for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_names_cannot_break_a_line(server, tiny, tmp_path, form):
    name = 'ph"i\n\x1b[2J\\ti\x7fny\u0085é'
    model = tmp_path / name
    shutil.copytree(tiny, model)
    running = server(model, "--log-format", form)
    assert running.stop() == 0
    lines = running.log().splitlines()
    assert not set("\x1b\u0085") & set(running.log())
    if form == "json":
        messages = [json.loads(line)["message"] for line in lines]
        assert any(str(model) in message for message in messages)
        assert any(f"model {name} (" in message for message in messages)
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\dT\S+ (info|warning) ", line) for line in lines)
        assert any(r'ph"i\n\x1b[2J\ti\x7fny\x85é' in line for line in lines)
