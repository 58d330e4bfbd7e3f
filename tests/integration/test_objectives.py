"""Objectives, contexts and uploaded vectors on a real server with SmolLM2: what is taken, what is refused, and the numbers of transformers."""

import io
import json
import signal

import grpc
import numpy
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2
from safetensors.numpy import save as save_safetensors

HIDDEN = 576
# What makes a job of SmolLM2 take a second or two.
SMALL = dict(tokens=5, population=2, children_per_parent=2, top_k=16, iterations=2)
SMALL_FLAGS = ["--tokens", 5, "--population", 2, "--children", 2, "--topk", 16, "--iterations", 2]


@pytest.fixture(scope="module")
def smollm2(module_server, smollm2_dir):
    return module_server(smollm2_dir)


@pytest.fixture(scope="module")
def model(smollm2_dir):
    from transformers import AutoModelForCausalLM

    # A second thread would wait spinning for a core that the server has.
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_dir)


@pytest.fixture
def cli(epo, smollm2, tmp_path):
    return lambda *args: epo(*args, server=smollm2, env={"XDG_CONFIG_HOME": str(tmp_path)})


def npy(array, **how):
    file = io.BytesIO()
    numpy.save(file, array, **how)
    return file.getvalue()


def vector(seed, rows=None):
    size = HIDDEN if rows is None else (rows, HIDDEN)
    return numpy.random.default_rng(seed).normal(size=size).astype(numpy.float32)


def upload(server, stubs, **content):
    return server.stub.UploadVector(stubs.service.UploadVectorRequest(**content), timeout=60)


def refused(call, request, code=grpc.StatusCode.INVALID_ARGUMENT):
    """Field -> description of an INVALID_ARGUMENT; the message of another error."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    error = caught.value
    assert error.code() == code, error
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return {v.field: v.description for v in bad.field_violations}
    return error.details()


def job_request(stubs, objective, **fields):
    spec = stubs.job.JobSpec(objective=objective, **{**SMALL, **fields})
    return stubs.service.CreateJobRequest(spec=spec)


def run(server, stubs, objective, **fields):
    job = server.stub.CreateJob(job_request(stubs, objective, **fields), timeout=60)
    updates = list(server.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=300))
    assert updates[-1].ended.state == stubs.job.Job.SUCCEEDED, updates[-1].ended.error
    return updates[-1].ended


def direction(stubs, layer=12, **vector):
    o = stubs.objective
    return o.Objective(terms=[o.Term(direction=o.DirectionTerm(layer=layer, vector=o.Vector(**vector)))])


def text(stubs, value):
    return stubs.frontier.Prompt(text=value)


def log_probs(model, ids):
    """For each position, log p of every token as the next one."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


# Uploads


def test_the_same_numbers_in_any_file_are_one_vector(smollm2, stubs):
    matrix = vector(1, rows=3)
    whole = upload(smollm2, stubs, npy=npy(matrix))
    assert (whole.rows, whole.width) == (3, HIDDEN)
    assert upload(smollm2, stubs, npy=npy(matrix.astype(numpy.float64))) == whole
    tensors = {"b": matrix, "a": numpy.ones(3, numpy.float32)}
    assert upload(smollm2, stubs, safetensors=save_safetensors(tensors), tensor="b") == whole
    halves = matrix.astype(numpy.float16)
    of_halves = upload(smollm2, stubs, npy=npy(halves))
    assert of_halves != whole and of_halves == upload(smollm2, stubs, npy=npy(halves.astype(numpy.float32)))

    bf16 = torch.tensor(matrix).to(torch.bfloat16)
    from safetensors.torch import save

    assert upload(smollm2, stubs, safetensors=save({"w": bf16})) == upload(smollm2, stubs, npy=npy(bf16.float().numpy()))


@pytest.mark.parametrize(
    "field, content, why",
    [
        ("content", {}, "is required"),
        ("npy", {"npy": b"not a file"}, "does not begin as one"),
        ("npy", {"npy": npy(vector(1))[:-1]}, "cut off"),
        ("npy", {"npy": npy(numpy.zeros(4, numpy.float32))}, "all 0"),
        ("npy", {"npy": npy(numpy.array([1, numpy.nan], numpy.float32))}, "in row 0 at index 1"),
        ("npy", {"npy": npy(numpy.array([1e39, 1]))}, "inf as float32"),
        ("npy", {"npy": npy(numpy.arange(4))}, "'<i8'"),
        ("npy", {"npy": npy(numpy.ones((2, 3), numpy.float32, order="F"))}, "Fortran order"),
        ("npy", {"npy": npy(numpy.ones((1, 2, 3), numpy.float32))}, "[1, 2, 3]"),
        ("npy", {"npy": npy(numpy.ones((0,), numpy.float32))}, "empty"),
        ("npy", {"npy": npy(numpy.array([{}], dtype=object), allow_pickle=True)}, "'|O'"),
        ("safetensors", {"safetensors": b"\xff" * 20}, "past the end"),
        ("tensor", {"safetensors": save_safetensors({"a": vector(1), "b": vector(2)})}, "a, b"),
        ("tensor", {"safetensors": save_safetensors({"a": vector(1)}), "tensor": "c"}, "holds a"),
        ("tensor", {"safetensors": save_safetensors({"a": numpy.arange(3)})}, "I64"),
    ],
)
def test_bad_uploads(smollm2, stubs, field, content, why):
    found = refused(smollm2.stub.UploadVector, stubs.service.UploadVectorRequest(**content))
    assert set(found) == {field} and why in found[field]


def test_uploads_are_bounded(server, root, stubs):
    running = server(root / "tests/parity/phi-tiny", "--max-vectors", "2", "--max-vector-bytes", "1000")
    for value in (1, 2, 1):
        upload(running, stubs, npy=npy(numpy.full(4, value, numpy.float32)))
    request = stubs.service.UploadVectorRequest(npy=npy(numpy.full(4, 3, numpy.float32)))
    assert "--max-vectors" in refused(running.stub.UploadVector, request, grpc.StatusCode.RESOURCE_EXHAUSTED)
    request = stubs.service.UploadVectorRequest(npy=npy(numpy.ones(300, numpy.float32)))
    assert "--max-vector-bytes" in refused(running.stub.UploadVector, request, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_an_upload_over_the_message_limit(smollm2, stubs):
    with pytest.raises(grpc.RpcError) as caught:
        upload(smollm2, stubs, npy=npy(numpy.ones((1200, 1024), numpy.float32)))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "4194304" in caught.value.details()


def test_jobs_name_rows_of_uploads(smollm2, stubs):
    matrix = vector(2, rows=2)
    name = upload(smollm2, stubs, npy=npy(matrix)).name
    by_name = run(smollm2, stubs, direction(stubs, name=name, row=1))
    inline = run(smollm2, stubs, direction(stubs, values=matrix[1].tobytes()))
    histories = [list(smollm2.stub.GetHistory(stubs.service.GetHistoryRequest(id=j.id))) for j in (by_name, inline)]
    assert histories[0] == histories[1]
    assert by_name.spec.objective.terms[0].direction.vector.name == name

    narrow = upload(smollm2, stubs, npy=npy(numpy.ones(HIDDEN - 1, numpy.float32))).name
    path = "spec.objective.terms[0].direction.vector"
    for bad, field, why in [
        ({"name": "v" + "0" * 32}, path, "was not uploaded"),
        ({"name": name, "row": 2}, path + ".row", "has 2 rows"),
        ({"name": name, "row": -1}, path + ".row", "is -1"),
        ({"name": narrow}, path, f"has {HIDDEN - 1} numbers"),
    ]:
        found = refused(smollm2.stub.CreateJob, job_request(stubs, direction(stubs, **bad)))
        assert set(found) == {field} and why in found[field], found


def test_a_job_that_names_a_vector_survives_kill_9(server, root, stubs):
    tiny = root / "tests/parity/phi-tiny"
    running = server(tiny, dtype="float64")
    width = running.stub.GetServerInfo(stubs.service.GetServerInfoRequest()).model.hidden_size
    matrix = numpy.random.default_rng(5).normal(size=(4, width)).astype(numpy.float32)
    name = upload(running, stubs, npy=npy(matrix)).name
    objective = direction(stubs, layer=2, name=name, row=3)
    fields = dict(iterations=100, population=2, children_per_parent=4, restart_period=20)
    expected = run(running, stubs, objective, **fields)
    histories = [list(running.stub.GetHistory(stubs.service.GetHistoryRequest(id=expected.id)))]

    job = running.stub.CreateJob(job_request(stubs, objective, **fields))
    for update in running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id)):
        if update.sequence >= 3:
            break
    running.stop(signal.SIGKILL)
    again = server(tiny, dtype="float64", state_dir=running.state_dir)
    updates = list(again.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=300))
    ended = updates[-1].ended
    assert ended.state == stubs.job.Job.SUCCEEDED and ended.attempts == 2, ended
    histories.append(list(again.stub.GetHistory(stubs.service.GetHistoryRequest(id=job.id))))
    assert len(histories[0]) == 100 and histories[0] == histories[1]


# Scores against transformers


def score(server, stubs, objective, prompts, **fields):
    request = stubs.service.ScoreRequest(objective=objective, prompts=prompts, **fields)
    return server.stub.Score(request, timeout=120).scores


def test_scores_in_contexts_are_those_of_transformers(smollm2, stubs, model, tokenizer):
    o = stubs.objective
    contexts = [("The weather today", " and so it", False), ("", "", False), ("Once upon", "", True)]
    prompts = [" is cold in the far north", " dogs bark"]
    [dog], [cat] = (tokenizer.encode(t) for t in (" dog", " cat"))
    objective = o.Objective(terms=[
        o.Term(logit_difference=o.LogitDifferenceTerm(token=o.TokenReference(text=" dog"), other=o.TokenReference(id=cat)))
    ])

    def wire(prefix, suffix, bos):
        context = o.Context(bos=bos)
        if prefix:
            context.prefix.text = prefix
        if suffix:
            context.suffix.text = suffix
        return context

    def expected(prompt, prefix, suffix, bos, with_suffix):
        before = [1] * bos + (tokenizer.encode(prefix) if prefix else [])
        ids, after = tokenizer.encode(prompt), tokenizer.encode(suffix) if suffix else []
        whole = before + ids + after
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].double()
        counted = range(max(len(before), 1), len(before) + len(ids) + (len(after) if with_suffix else 0))
        costs = [-torch.log_softmax(logits[i - 1], -1)[whole[i]].item() for i in counted]
        return (logits[-1][dog] - logits[-1][cat]).item(), sum(costs) / len(costs)

    wires = [wire(*c) for c in contexts]
    for window, with_suffix in ((o.PROMPT_ONLY, False), (o.PROMPT_AND_SUFFIX, True)):
        for across, combine in ((o.MEAN, lambda x: sum(x) / len(x)), (o.MIN, min)):
            got = score(smollm2, stubs, objective, [text(stubs, p) for p in prompts], contexts=wires,
                        across_contexts=across, fluency_window=window)
            for prompt, one in zip(prompts, got, strict=True):
                each = [expected(prompt, *c, with_suffix) for c in contexts]
                assert one.target == pytest.approx(combine([t for t, _ in each]), abs=2e-3)
                assert one.cross_entropy == pytest.approx(sum(x for _, x in each) / len(each), abs=1e-3)
    one = score(smollm2, stubs, objective, [text(stubs, " dogs")], contexts=[wires[0]])[0]
    assert one.cross_entropy == pytest.approx(expected(" dogs", *contexts[0], False)[1], abs=1e-3)
    assert not score(smollm2, stubs, objective, [text(stubs, " dogs")])[0].HasField("cross_entropy")


def test_a_continuation_is_its_tokens_log_probabilities(smollm2, stubs, model, tokenizer):
    o = stubs.objective
    objective = o.Objective(terms=[o.Term(continuation=o.ContinuationTerm(text=text(stubs, " is Paris.")))])
    ids, more = tokenizer.encode("The capital of France"), tokenizer.encode(" is Paris.")
    probs = log_probs(model, ids + more)
    expected = sum(probs[len(ids) - 1 + i][t].item() for i, t in enumerate(more))
    got = score(smollm2, stubs, objective, [text(stubs, "The capital of France")])[0].target
    assert got == pytest.approx(expected, abs=2e-3)


def test_scores_name_what_cannot_be_read(smollm2, stubs):
    o = stubs.objective
    objective = o.Objective(terms=[o.Term(neuron=o.NeuronObjective(), position=o.Position(index=3))])
    request = stubs.service.ScoreRequest(objective=objective, prompts=[text(stubs, "one two three four"), text(stubs, "one")])
    found = refused(smollm2.stub.Score, request)
    assert set(found) == {"prompts[1]"} and "objective.terms[0].position.index" in found["prompts[1]"]
    request.contexts.add().prefix.text = "a b c d e f"
    found = refused(smollm2.stub.Score, request)
    assert set(found) == {"objective.terms[0].position"} and "no prompt changes" in found["objective.terms[0].position"]


def test_measured_scales_are_told(smollm2, stubs):
    o = stubs.objective
    objective = o.Objective(terms=[
        o.Term(neuron=o.NeuronObjective(layer=8, neuron=1), measured_scale=True),
        o.Term(logit=o.LogitTerm(token=o.TokenReference(id=5)), constant_scale=2.5),
    ])
    job = run(smollm2, stubs, objective)
    assert len(job.term_scales) == 2 and job.term_scales[0] > 0 and job.term_scales[1] == 2.5
    found = refused(smollm2.stub.Score, stubs.service.ScoreRequest(objective=objective, prompts=[text(stubs, "a b")]))
    assert set(found) == {"objective.terms[0].measured_scale"}


# Where to start, and trying dry


def test_a_job_starts_from_anothers_frontier(smollm2, stubs):
    neuron = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=8, neuron=1))
    source = run(smollm2, stubs, neuron, population=3, iterations=4)
    frontier = smollm2.stub.GetFrontier(stubs.service.GetFrontierRequest(id=source.id)).points
    for population in (2, len(frontier) + 2):
        job = run(smollm2, stubs, neuron, population=population, initial_job=source.id)
        assert not job.spec.initial_job
        got = [list(p.ids.ids) for p in job.spec.initial_prompts]
        assert got[0] == list(frontier[0].ids) and len(got) == population
        if population > len(frontier):
            assert got == [list(frontier[i % len(frontier)].ids) for i in range(population)]
        else:
            assert got[-1] == list(frontier[-1].ids)
        history = next(smollm2.stub.GetHistory(stubs.service.GetHistoryRequest(id=job.id)))
        assert [list(i.ids) for i in history.ids[:population]] == got
    for fields, why in [
        (dict(initial_job="jnone"), "no such job"),
        (dict(initial_job=source.id, tokens=7), "have 5 tokens, but tokens is 7"),
        (dict(initial_job=source.id, initial_prompts=[text(stubs, "a")]), "together with initial_prompts"),
    ]:
        found = refused(smollm2.stub.CreateJob, job_request(stubs, neuron, **fields))
        assert set(found) == {"spec.initial_job"} and why in found["spec.initial_job"]


def test_a_dry_run_keeps_nothing(server, root, stubs, epo):
    running = server(root / "tests/parity/phi-tiny")
    small = ["--tokens", 6, "--population", 2, "--children", 4, "--topk", 16, "--iterations", 3]

    def dry(*args):
        return epo("submit", *args, *small, "--dry-run", "-o", "json", server=running)

    first = json.loads(dry("--neuron", "1:3").stdout)
    assert first["id"] == "" and first["step_rows"] == 2 * 5 * 6 and first["estimated_step_seconds"] is None
    assert first["spec"]["penalty_max"] == 10 and first["state"] == "QUEUED"
    in_contexts = json.loads(dry("--neuron", "1:3", "--suffix", "a", "--prefix", "b", "--prefix", "c").stdout)
    assert in_contexts["step_rows"] == 2 * 2 * 5 * (6 + 1)
    assert dry("--neuron", "99:3").returncode == 67
    assert epo("list", "-o", "jsonl", server=running).stdout == ""
    assert epo("submit", "--neuron", "1:3", *small, "--wait", server=running).returncode == 0
    assert json.loads(dry("--neuron", "1:3").stdout)["estimated_step_seconds"] > 0
    table = epo("submit", "--neuron", "1:3", *small, "--dry-run", server=running)
    assert "a step scores 10 prompts, 60 rows, about " in table.stdout and '"penalty_max"' in table.stdout
    assert len(epo("list", "-o", "jsonl", server=running).stdout.splitlines()) == 1


# The command line


def test_each_shorthand(cli, stubs, tmp_path):
    file = tmp_path / "v.npy"
    matrix = vector(3, rows=2)
    numpy.save(file, matrix)
    name = cli("upload-vector", file).stdout.strip()
    assert json.loads(cli("upload-vector", file, "-o", "json").stdout) == {"name": name, "rows": 2, "width": HIDDEN}

    def objective(*flags):
        result = cli("submit", *flags, *SMALL_FLAGS, "--dry-run", "-o", "json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["spec"]

    def only(*flags):
        [term] = objective(*flags)["objective"]["terms"]
        return term

    assert objective("--neuron", "8:1")["objective"]["neuron"] == {"layer": 8, "neuron": 1}
    assert objective("--layer", 8, "--neuron", 1)["objective"]["neuron"] == {"layer": 8, "neuron": 1}
    assert objective("--neuron", "8:1", "--minimize")["objective"]["goal"] == "MINIMIZE"
    term = only("--direction", f"{file}:1@12:post", "--standardized")["direction"]
    assert (term["layer"], term["point"], term["standardized"]) == (12, "POST_BLOCK", True)
    import base64

    assert base64.b64decode(term["vector"]["values"]) == matrix[1].tobytes()
    assert only("--direction", f"{name}:1@12")["direction"]["vector"] == {"name": name, "row": 1}
    assert only("--feature", f"{name}@12")["feature"]["point"] == "POST_BLOCK"
    assert only("--logit", " dog")["logit"] == {"token": {"text": " dog"}}
    assert only("--logit", "id:464")["logit"] == {"token": {"id": 464}}
    assert only("--logit-diff", " dog")["logit_difference"] == {"token": {"text": " dog"}, "other": None}
    assert only("--logit-diff", " dog", "--versus", " cat")["logit_difference"]["other"] == {"text": " cat"}
    assert only("--attention", "5:2:0")["attention"] == {"layer": 5, "head": 2, "key": 0}
    assert only("--continuation", "{}")["continuation"] == {"text": {"text": "{}"}}
    assert only("--cosine", "a dog@12")["cosine"] == {"layer": 12, "point": "PRE_BLOCK", "text": {"text": "a dog"}}
    assert only("--cosine", f"{name}@12")["cosine"]["vector"]["name"] == name
    assert only("--neuron", "8:1", "--position", -2)["position"]["index"] == -2
    assert only("--neuron", "8:1", "--position", "prompt:max:0:3")["position"] == {"frame": "PROMPT", "max": {"first": 0, "last": 3}}
    assert only("--neuron", "8:1", "--position", "mean")["position"]["mean"] == {"first": 0, "last": -1}
    terms = objective("--logit", " dog", "--neuron", "8:1", "--logit", " cat")["objective"]["terms"]
    assert [next(k for k in t if k in ("neuron", "logit")) for t in terms] == ["logit", "neuron", "logit"]
    assert objective("--neuron", "8:1", "--prefix", "a", "--prefix", "b", "--suffix", "c", "--bos", "--across", "min") | {
        "contexts": [{"prefix": {"text": p}, "suffix": {"text": "c"}, "bos": True} for p in "ab"], "across_contexts": "MIN",
    } == objective("--neuron", "8:1", "--prefix", "a", "--prefix", "b", "--suffix", "c", "--bos", "--across", "min")


@pytest.mark.parametrize("command", ["submit", "score"])
def test_the_help_of_objectives_fits_a_screen(cli, command):
    lines = cli(command, "--help-objective").stdout.splitlines()
    assert 15 < len(lines) <= 24 and max(map(len, lines)) <= 80


def test_bad_flags_are_named(cli):
    def refuse(*flags):
        result = cli("submit", *flags, *SMALL_FLAGS)
        assert result.returncode == 67, result.stderr
        return result.stderr

    assert refuse("--logit", " dogs bark").startswith("epo: --logit (spec.objective.terms[0].logit.token): is a text of 2 tokens, the ids ")
    assert refuse("--neuron", "99:1").startswith("epo: --neuron (spec.objective.neuron.layer): is 99")
    assert refuse("--layer", 99, "--neuron", 1).startswith("epo: --layer (")
    assert refuse("--logit", " dog", "--position", 7).startswith("epo: --position (")
    assert refuse("--logit", " dog", "--init-from", "jnone").startswith("epo: --init-from (spec.initial_job): ")
    assert refuse("--logit", " dog", "--prefix", "a " * 9000).startswith("epo: --prefix (spec.contexts[0].prefix): has ")


def test_an_objective_of_a_file(cli, tmp_path):
    file = tmp_path / "objective.json"
    file.write_text('{"terms": [{"logit": {"token": {"text": " dog"}}, "weight": 2},\n {"neuron": {"layer": 8}}],\n "combination": "SOFT_MIN"}')
    spec = json.loads(cli("submit", "--objective", file, *SMALL_FLAGS, "--dry-run", "-o", "json").stdout)["spec"]
    assert [t["weight"] for t in spec["objective"]["terms"]] == [2, 1] and spec["objective"]["temperature"] == 1
    file.write_text('{"terms": [\n{"logits": {}}]}')
    result = cli("submit", "--objective", file)
    assert result.returncode == 2 and f"{file}, line 2: is no Objective: " in result.stderr


def test_chat_is_the_models_template(cli, tokenizer):
    spec = json.loads(cli("submit", "--logit", " dog", "--chat", *SMALL_FLAGS, "--dry-run", "-o", "json").stdout)["spec"]
    [context] = spec["contexts"]
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "HERE"}], tokenize=False, add_generation_prompt=True)
    assert [context["prefix"]["text"], context["suffix"]["text"]] == rendered.split("HERE")


def test_scores_of_the_command_line(cli, smollm2, stubs):
    result = cli("score", "--continuation", " is Paris.", "--prefix", "Question:", "The capital of France", "-o", "json")
    assert result.returncode == 0, result.stderr
    [got] = json.loads(result.stdout)["scores"]
    o = stubs.objective
    objective = o.Objective(terms=[o.Term(continuation=o.ContinuationTerm(text=text(stubs, " is Paris.")))])
    wire = score(smollm2, stubs, objective, [text(stubs, "The capital of France")],
                 contexts=[o.Context(prefix=text(stubs, "Question:"))])[0]
    assert got["target"] == pytest.approx(wire.target, abs=1e-4)
    assert cli("score", "--neuron", "8:1", "The capital of France").stdout.lstrip().startswith("target")


def test_jobs_of_several_terms_run(cli):
    result = cli("submit", "--logit-diff", " dog", "--attention", "5:2:0", "--position", "-1", "--chat", *SMALL_FLAGS, "--watch")
    assert result.returncode == 0, result.stderr
    assert result.stdout.lstrip().startswith("target") or "target" in result.stdout.splitlines()[0]
    listed = cli("list").stdout.splitlines()[1]
    assert "logit of \" dog\" over all others + layer 5 head 2 attention to 0" in listed
