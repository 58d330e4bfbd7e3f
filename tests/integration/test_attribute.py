"""Causal attribution on a real server equals an independent computation over transformers in float64; and the command that shows it."""

import json
import pathlib
import sys

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "parity"))

PARITY = pathlib.Path(__file__).parents[1] / "parity"
# The tiny tokenizer's special tokens are not proposed.
ORDINARY = 512


@pytest.fixture(scope="module", params=["phi-tiny", "llama-tiny"])
def tiny(request, module_server):
    """(server, checkpoint)."""
    return module_server(PARITY / request.param, dtype="float64"), PARITY / request.param


def attribute(server, stubs, **fields):
    """(prompt, tokens)."""
    first, *rest = server.stub.Attribute(stubs.attribution.AttributeRequest(**fields), timeout=120)
    assert [part.WhichOneof("part") for part in rest] == ["token"] * len(rest)
    return first.prompt, [part.token for part in rest]


def refused(server, stubs, code=grpc.StatusCode.INVALID_ARGUMENT, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        attribute(server, stubs, **fields)
    assert caught.value.code() == code, caught.value
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return {v.field: v.description for v in bad.field_violations}
    return caught.value.details()


def ids(stubs, values):
    return stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=values))


def neuron(stubs, layer, index):
    return stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=layer, neuron=index))


def test_equals_transformers(tiny, stubs):
    from plain import PlainModel

    server, path = tiny
    plain = PlainModel(path, "float64")
    prompt, objective, count = [17, 300, 5, 44, 91, 260], (2, 5), 12
    scored, tokens = attribute(server, stubs, prompt=ids(stubs, prompt), objective=neuron(stubs, *objective), substitutes=count)
    [target], [cross_entropy] = plain.scores([prompt], objective)
    assert scored.target == pytest.approx(target.item(), rel=1e-6)
    assert scored.cross_entropy == pytest.approx(cross_entropy.item(), rel=1e-6)
    assert [(t.position, t.id) for t in tokens] == list(enumerate(prompt))
    # Descending promise is ascending gradient of -f.
    [promise] = plain.one_hot_gradients([prompt], objective, [0.0])
    for position, token in enumerate(tokens):
        order = [t for t in promise[position, :ORDINARY].float().argsort(stable=True).tolist() if t != prompt[position]]
        assert [s.id for s in token.substitutes] == order[:count]
        targets, cross_entropies = plain.scores([prompt[:position] + [s.id] + prompt[position + 1 :] for s in token.substitutes], objective)
        assert [s.target for s in token.substitutes] == pytest.approx(targets.tolist(), rel=1e-5, abs=1e-6)
        assert [s.cross_entropy for s in token.substitutes] == pytest.approx(cross_entropies.tolist(), rel=1e-5)
        assert token.drop_to_best == pytest.approx((target - targets.max()).item(), rel=1e-5, abs=1e-5)
        assert token.drop_to_worst == pytest.approx((target - targets.min()).item(), rel=1e-5, abs=1e-5)


def test_a_jobs_point_is_attributed_under_its_objective(tiny, stubs, epo, tmp_path):
    server, _ = tiny
    o = stubs.objective
    terms = [
        o.Term(neuron=o.NeuronObjective(layer=1, neuron=3), measured_scale=True),
        o.Term(logit=o.LogitTerm(token=o.TokenReference(id=7)), weight=0.5),
    ]
    contexts = [o.Context(prefix=ids(stubs, [1, 2, 3]), suffix=ids(stubs, [9]))]
    spec = stubs.job.JobSpec(
        objective=o.Objective(terms=terms), contexts=contexts, tokens=5, population=3, children_per_parent=4, top_k=32, iterations=4
    )
    job = server.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec), timeout=60)
    *_, last = server.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=120)
    assert last.ended.state == stubs.job.Job.SUCCEEDED
    points = server.stub.GetFrontier(stubs.service.GetFrontierRequest(id=job.id), timeout=60).points
    for index, point in enumerate(points):
        prompt, tokens = attribute(server, stubs, point=stubs.attribution.FrontierPoint(job=job.id, index=index))
        assert prompt.ids == point.ids
        # In the units of the job: what it measured is what the term is divided by.
        assert prompt.target == pytest.approx(point.target, rel=1e-5)
        assert prompt.cross_entropy == pytest.approx(point.cross_entropy, rel=1e-5)
        assert [len(t.substitutes) for t in tokens] == [32] * 5
    assert "point.index" in refused(server, stubs, point=stubs.attribution.FrontierPoint(job=job.id, index=len(points)))
    both = {"point": stubs.attribution.FrontierPoint(job=job.id), "objective": neuron(stubs, 0, 0), "contexts": contexts}
    assert refused(server, stubs, **both).keys() == {"objective", "contexts"}

    shown = epo("attribute", "--job", job.id, "--substitutes", 4, "-o", "json", server=server, env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert shown.returncode == 0, shown.stderr
    prompt, tokens = (json.loads(shown.stdout)[key] for key in ("prompt", "tokens"))
    assert prompt["ids"] == list(points[0].ids)
    assert (prompt["target"], prompt["cross_entropy"]) == pytest.approx((points[0].target, points[0].cross_entropy), rel=1e-5)
    lines = epo("attribute", "--job", job.id, "--substitutes", 4, "-o", "jsonl", server=server, env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert [json.loads(line) for line in lines.stdout.splitlines()] == [{"prompt": prompt}, *tokens]
    assert [t["id"] for t in tokens] == list(points[0].ids)
    assert all(len(t["substitutes"]) == 4 for t in tokens)
    shown = epo("attribute", "--job", job.id, "--point", len(points) - 1, server=server, env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert shown.returncode == 0, shown.stderr
    assert "drop to best" in shown.stdout and len(shown.stdout.splitlines()) == 9  # A header and a line, an empty one, a header and five.


def test_bad_requests(tiny, stubs, epo, tmp_path):
    server, _ = tiny
    good = {"prompt": ids(stubs, [1, 2, 3]), "objective": neuron(stubs, 0, 0)}
    assert "prompt" in refused(server, stubs, objective=good["objective"])
    assert "objective" in refused(server, stubs, prompt=good["prompt"])
    for count in (0, -1, 513):
        assert "substitutes" in refused(server, stubs, **good, substitutes=count)
    assert "objective.neuron.layer" in refused(server, stubs, **{**good, "objective": neuron(stubs, 99, 0)})
    assert "prompt" in refused(server, stubs, **{**good, "prompt": ids(stubs, [1, 100_000])})
    assert "prompt" in refused(server, stubs, **{**good, "prompt": ids(stubs, [1] * 5000)})
    assert "point.job" in refused(server, stubs, point=stubs.attribution.FrontierPoint())
    assert "jnone" in refused(server, stubs, grpc.StatusCode.NOT_FOUND, point=stubs.attribution.FrontierPoint(job="jnone"))

    cli = lambda *args: epo("attribute", *args, server=server, env={"XDG_CONFIG_HOME": str(tmp_path)})
    for flags in (["--neuron", "0:0"], ["--neuron", "0:0", "one", "two"], ["--job", "j", "text"], ["--point", 1, "--neuron", "0:0", "text"]):
        assert cli(*flags).returncode == 2, flags
    assert cli("--neuron", "99:0", "text").returncode == 67
    assert cli("--job", "jnone").returncode == 69


def test_a_leaving_reader_ends_the_work(tiny, stubs):
    """And a long one holds nobody up: each takes turns."""
    server, _ = tiny
    long = server.stub.Attribute(
        stubs.attribution.AttributeRequest(prompt=ids(stubs, [i % 500 for i in range(200)]), objective=neuron(stubs, 1, 1), substitutes=256), timeout=120
    )
    next(long)
    prompt, tokens = attribute(server, stubs, prompt=ids(stubs, [4, 5]), objective=neuron(stubs, 1, 1), substitutes=2)
    assert len(tokens) == 2
    long.cancel()
    with pytest.raises(grpc.RpcError):
        list(long)
    assert len(attribute(server, stubs, prompt=ids(stubs, [4, 5]), objective=neuron(stubs, 1, 1))[1]) == 2
