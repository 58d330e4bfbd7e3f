"""Constraints of a job on a real server with SmolLM2: what no child may be, judged by others' tokenizer and regular expressions."""

import json
import re
import statistics

import grpc
import pytest
import tokenizers
from google.rpc import error_details_pb2, status_pb2

SIZES = {"population": 4, "children_per_parent": 16, "tokens": 8, "iterations": 6}
POOL = 4 + 4 * 16


@pytest.fixture(scope="module")
def running(module_server, smollm2_dir):
    return module_server(smollm2_dir)


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir):
    return tokenizers.Tokenizer.from_file(str(smollm2_dir / "tokenizer.json"))


@pytest.fixture
def text_of(tokenizer):
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False)


def ids_of(stubs, *texts):
    return [stubs.frontier.Prompt(text=text) for text in texts]


class Jobs:
    def __init__(self, running, stubs):
        self.running = running
        self.stubs = stubs

    def request(self, constraints=None, **fields):
        objective = self.stubs.objective.Objective(neuron=self.stubs.objective.NeuronObjective(layer=8, neuron=12))
        spec = self.stubs.job.JobSpec(objective=objective, **{**SIZES, **fields})
        if constraints is not None:
            spec.constraints.CopyFrom(self.stubs.constraints.Constraints(**constraints))
        return self.stubs.service.CreateJobRequest(spec=spec)

    def create(self, constraints=None, **fields):
        return self.running.stub.CreateJob(self.request(constraints, **fields), timeout=60)

    def end(self, job):
        return list(self.running.stub.WatchJob(self.stubs.service.WatchJobRequest(id=job.id), timeout=300))[-1].ended

    def history(self, job):
        return list(self.running.stub.GetHistory(self.stubs.service.GetHistoryRequest(id=job.id), timeout=60))

    def run(self, constraints=None, **fields):
        """The history of a job that succeeds, with full pools."""
        job = self.end(self.create(constraints, **fields))
        assert job.state == self.stubs.job.Job.SUCCEEDED, job.error
        history = self.history(job)
        assert [len(i.ids) for i in history] == [POOL] * job.spec.iterations
        return job, history

    def frontier(self, job, kind):
        return self.running.stub.GetFrontier(self.stubs.service.GetFrontierRequest(id=job.id, kind=kind), timeout=60).points


@pytest.fixture
def jobs(running, stubs):
    return Jobs(running, stubs)


def prompts(history):
    return [list(member.ids) for iteration in history for member in iteration.ids]


def test_no_prompt_holds_a_banned_text(jobs, text_of):
    banned = ["The", "ER", "n a", "s."]

    def holding(history):
        return [text for text in map(text_of, prompts(history)) if any(b.lower() in text.lower() for b in banned)]

    start = {"seed": 3, "tokens": 12}
    assert len(holding(jobs.run(**start)[1])) > POOL
    assert holding(jobs.run({"banned_texts": banned}, **start)[1]) == []


def test_a_text_may_be_banned_that_only_several_tokens_make(jobs, stubs, tokenizer, text_of):
    # Each of the two tokens is allowed, and stands alone in some prompt.
    first, second = (tokenizer.encode(t).ids for t in ("x", " y"))
    assert len(first) == len(second) == 1
    spec = {"tokens": 4, "initial_prompts": ids_of(stubs, "x z y z"), "top_k": 4}
    others = "^(?!x$| y$| z$|z$)"
    texts = set(map(text_of, prompts(jobs.run({"banned_token_regex": others, "banned_texts": ["X Y"]}, **spec)[1])))
    assert any("x z" in t for t in texts) and any("z y" in t for t in texts) and len(texts) > 4
    assert not any("x y" in t for t in texts)


def test_every_prompt_retokenizes(jobs, tokenizer, text_of):
    def kept(ids):
        return tokenizer.encode(text_of(ids), add_special_tokens=False).ids == ids

    _, without = jobs.run(seed=5, tokens=12)
    assert not all(map(kept, prompts(without)))
    _, history = jobs.run({"retokenizable": True}, seed=5, tokens=12)
    assert all(map(kept, prompts(history)))
    assert len(set(map(tuple, prompts(history)))) > 100


def test_points_say_whether_they_round_trip(jobs, stubs, tokenizer, text_of):
    job, _ = jobs.run(seed=5, tokens=24)
    steps = [u.step for u in jobs.running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id)) if u.HasField("step")]
    points = [slot.prompt for step in steps for slot in step.slots] + [point for step in steps for point in step.frontier.points]
    said = {tuple(p.ids): p.round_trips for p in points}
    assert said == {ids: tokenizer.encode(text_of(ids), add_special_tokens=False).ids == list(ids) for ids in said}
    assert set(said.values()) == {False, True}


@pytest.mark.parametrize("constraints, good", [
    ({"ascii_only": True}, lambda token: token.isascii()),
    ({"decodable_only": True}, lambda token: "\ufffd" not in token),
    ({"banned_token_regex": r"^\s*\p{L}{4,}|[^\x00-\x7f]"}, lambda token: token.isascii() and not re.match(r"\s*[A-Za-z]{4}", token)),
    ({"banned_ids": list(range(0, 49152, 2))}, None),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_tokens_that_may_not_be_used(jobs, tokenizer, constraints, good):
    used = {i for ids in prompts(jobs.run(constraints)[1]) for i in ids}
    assert len(used) > 50
    if good is None:
        assert all(i % 2 for i in used)
    else:
        assert all(good(tokenizer.decode([i], skip_special_tokens=False)) for i in used)


def test_frozen_positions_keep_the_initial_tokens(jobs, stubs, tokenizer):
    text = "The capital of France is the city of"
    start = tokenizer.encode(text).ids
    frozen = [0, 1, 3, 7]
    assert len(start) == 8
    _, history = jobs.run({"frozen_positions": frozen}, initial_prompts=ids_of(stubs, text))
    found = prompts(history)
    assert all(ids[i] == start[i] for ids in found for i in frozen)
    assert all(any(ids[i] != start[i] for ids in found) for i in range(8) if i not in frozen)


def test_special_tokens_may_be_frozen(jobs, stubs, tokenizer):
    text = "<|im_start|>user tell me more<|im_end|>"
    start = tokenizer.encode(text).ids
    special = [i for i, token in enumerate(start) if tokenizer.decode([token]) == ""]
    assert len(special) == 2
    fields = {"initial_prompts": ids_of(stubs, text), "tokens": len(start)}
    _, history = jobs.run({"frozen_positions": special}, **fields)
    assert all([i for i, token in enumerate(ids) if token in (start[special[0]], start[special[1]])] == special for ids in prompts(history))
    assert set(refused(jobs, None, **fields)) == {"spec.initial_prompts[0]"}


@pytest.mark.parametrize("history", ["FULL", "FRONTIER"])
def test_nothing_above_the_ceiling_is_kept_or_on_a_frontier(jobs, stubs, history):
    fields = {"seed": 8, "iterations": 12, "restart_period": 5}
    _, free = jobs.run(**fields)
    ceiling = statistics.quantiles([x for i in free[:4] for x in i.cross_entropy], n=20)[0]
    assert min(free[0].cross_entropy) > ceiling
    job, whole = jobs.run({"max_cross_entropy": ceiling}, **fields)
    reached = above = 0
    for iteration in whole:
        kept = [iteration.cross_entropy[k] for k in iteration.keep]
        if min(iteration.cross_entropy) > ceiling:
            assert not reached and kept == [min(iteration.cross_entropy)] * 4
            continue
        reached += 1
        assert max(kept) <= ceiling
        above += max(iteration.cross_entropy) > ceiling
    assert 0 < reached < len(whole) and above, "the ceiling left nothing out"
    if history == "FRONTIER":
        job = jobs.end(jobs.create({"max_cross_entropy": ceiling}, history=stubs.job.FRONTIER, **fields))
    scores = {(tuple(m.ids), f, x) for i in whole for m, f, x in zip(i.ids, i.target, i.cross_entropy)}
    below = {s for s in scores if s[2] <= ceiling}
    best = {s for s in below if not any(o[1] >= s[1] and o[2] <= s[2] and o[1:] != s[1:] for o in below)}
    # A prompt that was scored twice, as a child and as a parent, may differ in its last digit; it is one point.
    pareto = {(tuple(p.ids), p.target, p.cross_entropy) for p in jobs.frontier(job, stubs.frontier.PARETO)}
    assert pareto <= best and {s[0] for s in pareto} == {s[0] for s in best}
    penalties = {p.cross_entropy for p in jobs.frontier(job, stubs.frontier.LAMBDA)}
    assert penalties and max(penalties) <= ceiling


def test_all_constraints_together(jobs, stubs, tokenizer, text_of):
    text = "In the morning we go to"
    start = tokenizer.encode(text).ids
    constraints = {"ascii_only": True, "decodable_only": True, "banned_ids": tokenizer.encode(" and").ids, "banned_token_regex": r"\d|^\n",
                   "banned_texts": ["ss", "o n"], "retokenizable": True, "frozen_positions": [0, 1], "max_cross_entropy": 9.5}
    _, history = jobs.run(constraints, initial_prompts=ids_of(stubs, text), tokens=len(start))
    for ids in prompts(history):
        found = text_of(ids)
        assert ids[:2] == start[:2] and found.isascii() and not re.search(r"\d|\n|ss|o n", found, re.I), found
        assert tokenizer.encode(found).ids == ids


def test_a_job_whose_constraints_allow_nothing_fails_alone(jobs, stubs, tokenizer):
    only = "^(?![ab]$)"
    ids = [tokenizer.encode(c).ids[0] for c in "abababab"]
    start = [stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=ids))]
    beside = [jobs.create(seed=seed, iterations=3) for seed in range(2)]
    stuck = jobs.create({"banned_token_regex": only, "banned_texts": ["aa", "zz", "bb"]}, initial_prompts=start)
    assert stuck.spec.top_k == 2
    unborn = jobs.create({"banned_token_regex": "^(?!a$)", "banned_texts": ["Aa"]})
    for job, fields in ((stuck, ["banned_texts[0]", "banned_texts[2]"]), (unborn, ["banned_texts[0]"])):
        ended = jobs.end(job)
        assert ended.state == stubs.job.Job.FAILED and ended.completed_iterations == 0
        assert ended.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        names = " and ".join(f"constraints.{field}" for field in fields)
        assert ended.error.message.startswith(f"{names}: ")
        info = error_details_pb2.ErrorInfo()
        assert ended.error.details[0].Unpack(info)
        assert (info.reason, dict(info.metadata)) == ("CONSTRAINTS_ALLOW_NOTHING", {"id": job.id, "constraints": names})
    for job in beside:
        assert jobs.end(job).state == stubs.job.Job.SUCCEEDED


def refused(jobs, constraints, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        jobs.create(constraints, **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    blob = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(blob).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return {v.field: v.description for v in bad.field_violations}
    raise AssertionError("no BadRequest")


@pytest.mark.parametrize("field, constraints, fields", [
    ("constraints.banned_token_regex", {"banned_token_regex": "a("}, {}),
    ("constraints.banned_token_regex", {"banned_token_regex": "((.+)*)*(#|~)$"}, {}),
    ("constraints.banned_token_regex", {"banned_token_regex": "|"}, {}),
    ("constraints.banned_ids", {"banned_ids": list(range(49152))}, {}),
    ("constraints.banned_ids[1]", {"banned_ids": [5, -7]}, {}),
    ("constraints.banned_texts[1]", {"banned_texts": ["fine", ""]}, {}),
    ("constraints.banned_texts[0]", {"banned_token_regex": "[^b]", "banned_texts": ["B"]}, {}),
    ("constraints.frozen_positions", {"frozen_positions": [0]}, {}),
    ("constraints.frozen_positions[0]", {"frozen_positions": [2]}, {"text": "Hello there"}),
    ("constraints.frozen_positions", {"frozen_positions": [1, 0]}, {"text": "Hello there"}),
    ("constraints.max_cross_entropy", {"max_cross_entropy": 0.0}, {}),
    ("constraints.max_cross_entropy", {"max_cross_entropy": float("nan")}, {}),
    ("top_k", {"banned_token_regex": "[^xyz]"}, {"top_k": 512}),
    ("initial_prompts[0]", {"banned_texts": ["O T"]}, {"text": "Hello there"}),
    ("initial_prompts[0]", {"ascii_only": True}, {"text": "Grüße alle"}),
    ("initial_prompts[0]", {"retokenizable": True}, {"ids": [100, 88, 85]}),  # "t", "h", "e"
])
def test_bad_constraints_are_refused_by_name(jobs, stubs, field, constraints, fields):
    fields = dict(fields)
    if "text" in fields:
        fields["initial_prompts"] = ids_of(stubs, fields.pop("text"))
    if "ids" in fields:
        fields["initial_prompts"] = [stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=fields.pop("ids")))]
    if "initial_prompts" in fields:
        prompt = fields["initial_prompts"][0]
        fields["tokens"] = len(prompt.ids.ids) or len(jobs.running.stub.Tokenize(stubs.service.TokenizeRequest(text=prompt.text)).tokens)
    found = refused(jobs, constraints, **fields)
    assert set(found) == {f"spec.{field}"}, found
    if field.startswith("initial_prompts"):
        (name,) = constraints
        assert f"constraints.{name}" in found[f"spec.{field}"]


def test_a_killed_server_goes_on_as_if_nothing_had_been(server, smollm2_dir, running, stubs):
    constraints = {"ascii_only": True, "banned_texts": ["an", "The"], "retokenizable": True, "max_cross_entropy": 10.0}
    fields = {"seed": 4, "iterations": 10, "restart_period": 4}
    _, whole = Jobs(running, stubs).run(constraints, **fields)
    first = server(smollm2_dir)
    job = Jobs(first, stubs).create(constraints, **fields)
    for update in first.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id), timeout=120):
        if update.sequence >= 4:
            break
    first.kill()
    again = Jobs(server(smollm2_dir, state_dir=first.state_dir), stubs)
    ended = again.end(job)
    assert ended.state == stubs.job.Job.SUCCEEDED and ended.attempts == 2
    assert [i.SerializeToString() for i in again.history(job)] == [i.SerializeToString() for i in whole]


def test_the_command_line_sends_every_constraint(epo, running):
    flags = ["--ascii", "--decodable", "--retokenize", "--ban", "[x]", "--ban", "Paris", "--ban-regex", "[0-9]", "--ban-ids", "5, 6",
             "--initial-text", "In the morning we go to", "--freeze", "0,3-4", "--max-cross-entropy", "11.5"]
    small = ["--layer", 8, "--neuron", 12, "--population", 2, "--children", 4, "--iterations", 2]
    result = epo("submit", *small, *flags, "--wait", "-o", "json", server=running)
    assert result.returncode == 0, result.stderr
    job = json.loads(result.stdout)
    assert job["spec"]["constraints"] == {
        "ascii_only": True, "decodable_only": True, "banned_ids": [5, 6], "banned_token_regex": "[0-9]", "banned_texts": ["[x]", "Paris"],
        "retokenizable": True, "frozen_positions": [0, 3, 4], "max_cross_entropy": 11.5}
    shown = epo("get", job["id"], server=running).stdout
    assert 'without "[x]", without "Paris", retokenizable, frozen at 0,3,4, cross-entropy at most 11.5' in shown
    points = json.loads(epo("frontier", job["id"], "-o", "json", server=running).stdout)["points"]
    assert points and all(point["round_trips"] for point in points)
    assert "round-trips" not in epo("frontier", job["id"], server=running).stdout
    assert json.loads(epo("submit", *small, "-o", "json", server=running).stdout)["spec"]["constraints"] is None


@pytest.mark.parametrize("flags, message", [
    (["--freeze", "3-1"], "--freeze: '3-1' is neither a position, from 0, nor a range"),
    (["--ban-ids", "1,x"], "--ban-ids: 'x' is no token id"),
    (["--ban-regex", "a("], "--ban-regex (spec.constraints.banned_token_regex): is no regular expression: missing closing parenthesis"),
    (["--ban", "ok", "--ban", ""], "--ban (spec.constraints.banned_texts[1]): is empty"),
    (["--freeze", "0"], "--freeze (spec.constraints.frozen_positions): needs the tokens that are frozen; give them in initial_prompts"),
    (["--max-cross-entropy", "-1"], "--max-cross-entropy (spec.constraints.max_cross_entropy): is -1"),
])
def test_the_command_line_names_the_flag(epo, running, flags, message):
    result = epo("submit", "--layer", 8, "--neuron", 12, *flags, server=running)
    assert result.returncode in (2, 67) and f"epo: {message}" in result.stderr, result.stderr


def test_help_has_the_constraints(epo):
    result = epo("submit", "--help-constraints")
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80
    for flag in ("--ban", "--ban-regex", "--ban-ids", "--ascii", "--decodable", "--retokenize", "--freeze", "--max-cross-entropy",
                 "--allow-special-tokens"):
        assert f"  {flag} " in result.stdout
    assert "--help-constraints" in epo("submit", "--help").stdout
