"""The Python client's attribution against real servers: that it is what the server says, what can go wrong, and how it is shown."""

import asyncio
import html.parser
import math
import re
import signal
import socket
import threading
import time

import numpy as np
import pytest

SPEC = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6}


@pytest.fixture(scope="module")
def tiny(root):
    return root / "tests/parity/phi-tiny"


@pytest.fixture(scope="module")
def running(module_server, tiny):
    return module_server(tiny, "--max-concurrent-jobs", "2")


@pytest.fixture
def client(epo_client, running):
    with epo_client.Client(running.address) as client:
        yield client


@pytest.fixture
def neuron(epo_client):
    return epo_client.neuron(2, 5)


@pytest.fixture
def run(client, neuron):
    return client.dream(neuron, iterations=12, **SPEC).wait(progress=False)


def said(attribution):
    """An attribution as plain values."""
    prompt = (list(attribution.prompt.ids), attribution.prompt.text, attribution.prompt.target, attribution.prompt.xentropy)
    return prompt, [
        (t.position, t.id, t.text, t.drop_to_best, t.drop_to_worst, [(s.id, s.text, s.target, s.xentropy) for s in t.substitutes])
        for t in attribution.tokens
    ]


def raw(running, stubs, **fields):
    """The same from the wire."""
    first, *rest = running.stub.Attribute(stubs.attribution.AttributeRequest(**fields), timeout=60)
    tokens = [part.token for part in rest]
    return (list(first.prompt.ids), first.prompt.text, first.prompt.target, first.prompt.cross_entropy), [
        (t.position, t.id, t.text, t.drop_to_best, t.drop_to_worst, [(s.id, s.text, s.target, s.cross_entropy) for s in t.substitutes])
        for t in tokens
    ]


# What is said


def test_a_runs_points_are_attributed(run, running, stubs, capsys):
    frontier = run.frontier()
    assert len(frontier) > 2
    for i in range(len(frontier)):
        attribution = run.attribute(i, progress=False)
        assert said(attribution) == raw(running, stubs, point=stubs.attribution.FrontierPoint(job=run.id, index=i))
        assert list(attribution.prompt.ids) == frontier.ids[i].tolist() and attribution.prompt.text == frontier.text[i]
    assert "token" not in capsys.readouterr().err
    best = run.attribute(substitutes=5)
    loudest = frontier.target.argmax()
    assert list(best.prompt.ids) == frontier.ids[loudest].tolist() and best.prompt.target == pytest.approx(frontier.target[loudest], rel=1e-5)
    assert all(len(t.substitutes) == 5 for t in best.tokens) and "6/6" in capsys.readouterr().err
    assert said(run.attribute(np.int64(loudest), substitutes=5, progress=False)) == said(best)


def test_drops_are_those_of_the_prompts_with_substitutes(run, client, neuron):
    attribution = run.attribute(progress=False)
    ids = list(attribution.prompt.ids)
    assert [(t.position, t.id) for t in attribution.tokens] == list(enumerate(ids))
    for token in attribution.tokens:
        prompts = [ids[: token.position] + [s.id] + ids[token.position + 1 :] for s in token.substitutes]
        scores = client.score(neuron, prompts)
        assert [s.target for s in token.substitutes] == pytest.approx(scores.target.tolist(), rel=1e-4, abs=1e-5)
        assert [s.xentropy for s in token.substitutes] == pytest.approx(scores.xentropy.tolist(), rel=1e-4)
        assert token.drop_to_best == pytest.approx(attribution.prompt.target - scores.target.max(), rel=1e-3, abs=1e-4)
        assert token.drop_to_worst == pytest.approx(attribution.prompt.target - scores.target.min(), rel=1e-3, abs=1e-4)
        ranked = [s.target for s in token.ranked]
        assert ranked == sorted(ranked, reverse=True) and len(ranked) == len(token.substitutes) == 32


def test_tables(run):
    attribution = run.attribute(progress=False)
    table, substitutes = attribution.table, attribution.substitutes
    assert list(table.columns) == ["text", "id", "drop_to_best", "drop_to_worst", "best", "worst"] and table.index.name == "position"
    assert table.id.tolist() == list(attribution.prompt.ids) and table.text.tolist() == [t.text for t in attribution.tokens]
    assert table.drop_to_best.tolist() == [t.drop_to_best for t in attribution.tokens]
    assert table.drop_to_worst.tolist() == [t.drop_to_worst for t in attribution.tokens]
    assert list(substitutes.columns) == ["position", "text", "id", "target", "xentropy"] and len(substitutes) == 6 * 32
    for position, tried in substitutes.groupby("position"):
        assert tried.text[tried.target.idxmax()] == table.best[position] and tried.text[tried.target.idxmin()] == table.worst[position]
        assert tried.id.tolist() == [s.id for s in attribution.tokens[position].substitutes]
    assert repr(attribution) == f"Attribution({attribution.prompt.text!r}, L2.N5 activation {attribution.prompt.target:.4g}, 6 tokens)"


def test_any_prompt_in_the_units_of_the_job(epo_client, client, neuron):
    """Scales that the job measured, contexts and what the contexts come to: a prompt of the frontier given by hand is the point."""
    other = epo_client.objective("logit", token=7, weight=0.5, measured_scale=True)
    around = {"contexts": [{"prefix": [1, 2, 3], "suffix": [9]}, {"prefix": [8]}], "across_contexts": "min",
              "fluency_window": "prompt_and_suffix"}
    run = client.dream(epo_client.combine(neuron, other), iterations=6, **around, **SPEC).wait(progress=False)
    point = run.attribute(0, progress=False)
    assert run.job.term_scales[1] not in (0, 1)
    assert said(run.attribute(prompt=point.prompt.ids, progress=False)) == said(point)
    assert said(run.attribute(prompt=np.array(point.prompt.ids), progress=False)) == said(point)
    text = run.attribute(prompt="a prompt", progress=False)
    assert text.prompt.text == "a prompt" and "".join(t.text for t in text.tokens) == "a prompt" and text.objective.label == run.objective.label
    # The point by default is found by its ids, too.
    last = len(run.frontier()) - 1
    assert said(run.attribute(progress=False)) == said(run.attribute(last, progress=False))


def test_without_a_job(client, neuron, running, stubs, run):
    prompt = [17, 300, 5, 44]
    wire = {"prompt": stubs.frontier.Prompt(ids=stubs.frontier.TokenIds(ids=prompt)),
            "objective": stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5)), "substitutes": 3}
    attribution = client.attribute(neuron, prompt, substitutes=3, progress=False)
    assert said(attribution) == raw(running, stubs, **wire) and attribution.objective.label == "L2.N5 activation"
    assert said(run.attribute(prompt=prompt, substitutes=3, progress=False)) == said(attribution)
    context = stubs.objective.Context(prefix=stubs.frontier.Prompt(text="Once"))
    placed = client.attribute(neuron, prompt, substitutes=3, contexts=[{"prefix": "Once"}], progress=False)
    assert said(placed) == raw(running, stubs, **wire, contexts=[context]) != said(attribution)
    # Nothing is predicted of one token alone.
    [one], alone = client.attribute(neuron, [17], progress=False).tokens, client.attribute(neuron, [17], progress=False).prompt
    assert math.isnan(alone.xentropy) and all(math.isnan(s.xentropy) for s in one.substitutes) and not math.isnan(one.drop_to_best)


def test_asyncio(epo_client, running, neuron):
    async def main():
        async with epo_client.AsyncClient(running.address) as client:
            run = await (await client.dream(neuron, iterations=12, **SPEC)).wait(progress=False)
            prompt = [17, 300, 5, 44]
            got = await asyncio.gather(run.attribute(progress=False), run.attribute(0, progress=False), run.attribute(prompt=prompt, progress=False),
                                       client.attribute(neuron, prompt, substitutes=4, progress=False))
            with pytest.raises(epo_client.InvalidArgumentError, match="point.index: is 50"):
                await run.attribute(50)
            waiting = await client.dream(neuron, iterations=1_000_000, **SPEC)
            await waiting.cancel()
            await waiting.delete()
            with pytest.raises(epo_client.NotFoundError, match=f'there is no job "{waiting.id}"'):
                await waiting.attribute()
            return run.id, got

    job, got = asyncio.run(main())
    with epo_client.Client(running.address) as client:
        run = client.job(job)
        expected = [run.attribute(progress=False), run.attribute(0, progress=False), run.attribute(prompt=[17, 300, 5, 44], progress=False),
                    client.attribute(neuron, [17, 300, 5, 44], substitutes=4, progress=False)]
    assert list(map(said, got)) == list(map(said, expected))

    async def nobody():
        async with epo_client.AsyncClient("127.0.0.1:1") as client:
            await client.attribute(neuron, "a prompt")

    with pytest.raises(epo_client.UnavailableError, match="cannot reach the server at 127.0.0.1:1"):
        asyncio.run(nobody())


# What can go wrong


def test_points_that_do_not_exist(epo_client, run):
    points = len(run.frontier())
    for index in (points, -1, 2**31 - 1):
        with pytest.raises(epo_client.InvalidArgumentError) as caught:
            run.attribute(index)
        assert str(caught.value) == f'point.index: is {index}; the frontier of job "{run.id}" has the points 0 to {points - 1}'


@pytest.mark.parametrize("arguments, kind, match", [
    ({"point": "a text"}, TypeError, "attribute.point.index"),
    ({"point": 2**40}, ValueError, "attribute.point.index: .*1099511627776"),
    ({"point": 0, "prompt": "a"}, TypeError, "give a point of the frontier or a prompt, not both"),
    ({"prompt": 7}, TypeError, "attribute.prompt: give a list, not 7"),
    ({"prompt": ["a"]}, TypeError, "attribute.prompt.ids.ids"),
    ({"substitutes": "many"}, TypeError, "attribute.substitutes"),
])
def test_arguments_that_cannot_be_meant(run, arguments, kind, match):
    with pytest.raises(kind, match=match):
        run.attribute(**arguments)


@pytest.mark.parametrize("arguments, match", [
    ({"substitutes": 0}, "substitutes: is 0; give 1 to 512"),
    ({"substitutes": 513}, "substitutes: is 513; give 1 to 512"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, 100_000]}, "prompt.*100000"),
    ({"prompt": [1] * 5000}, "prompt.*5000"),
])
def test_what_the_server_refuses(epo_client, run, arguments, match, capsys):
    with pytest.raises(epo_client.InvalidArgumentError, match=match):
        run.attribute(**arguments)
    # Nor does a bar stay behind.
    assert capsys.readouterr().err == ""


def test_bad_requests_without_a_job(epo_client, client, neuron):
    with pytest.raises(epo_client.InvalidArgumentError, match="objective.neuron.layer: "):
        client.attribute(epo_client.neuron(99, 5), "a prompt")
    with pytest.raises(TypeError, match="attribute has no field 'context'; did you mean contexts"):
        client.attribute(neuron, "a prompt", context=[])
    with pytest.raises(TypeError, match="attribute.objective"):
        client.attribute("a prompt", neuron)


def test_a_job_without_steps(epo_client, client, neuron):
    busy = [client.dream(neuron, iterations=1_000_000, **SPEC) for _ in range(2)]
    waiting = client.dream(neuron, iterations=3, **SPEC)
    try:
        for arguments in ({}, {"point": 0}):
            with pytest.raises(epo_client.NoStepsError, match=f"job {waiting.id} has no step yet .QUEUED.*; wait for it"):
                waiting.attribute(**arguments)
        # A prompt needs none.
        assert len(waiting.attribute(prompt=[1, 2, 3], progress=False).tokens) == 3
        waiting.cancel()
        with pytest.raises(epo_client.NoStepsError, match="CANCELLED, 0 of 3 steps.; it ended without one"):
            waiting.attribute()
    finally:
        for run in busy:
            run.cancel()


def test_a_job_under_way(client, neuron):
    """Its frontier moves; what is attributed is the best point of one that was."""
    run = client.dream(neuron, iterations=1_000_000, **SPEC)
    next(run.steps(progress=False))
    try:
        before = run.frontier().target.max()
        attribution = run.attribute(progress=False)
        assert before - 1e-4 <= attribution.prompt.target <= run.frontier().target.max() + 1e-4
    finally:
        run.cancel()


def test_a_deleted_job(epo_client, client, run):
    run.delete()
    for arguments in ({}, {"point": 0}, {"prompt": "a prompt"}):
        with pytest.raises(epo_client.NotFoundError, match=f'there is no job "{run.id}"'):
            run.attribute(**arguments)


def test_nothing_below_the_ceiling(epo_client, client, neuron):
    run = client.dream(neuron, iterations=2, constraints={"max_cross_entropy": 0.001}, **SPEC)
    with pytest.raises(epo_client.JobFailedError, match="constraints.max_cross_entropy: no prompt .* at most 0.001; the least is "):
        run.wait(progress=False)
    with pytest.raises(epo_client.StateError, match=f'job "{run.id}" ended without a frontier'):
        run.attribute()


def test_nobody_there(epo_client, neuron):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with epo_client.Client(address) as client, pytest.raises(epo_client.UnavailableError) as caught:
            client.attribute(neuron, "a prompt")
        assert time.monotonic() - start < 5
        assert str(caught.value).startswith(f"cannot reach the server at {address}: ") and "is epo-server running there?" in str(caught.value)


def test_another_model(epo_client, server, root, tiny, neuron):
    first = server(tiny)
    with epo_client.Client(first.address) as client:
        job = client.dream(neuron, iterations=2, **SPEC).wait(progress=False).id
    first.stop()
    with epo_client.Client(server(root / "tests/parity/llama-tiny", state_dir=first.state_dir).address) as client:
        for arguments in ({}, {"point": 0}, {"prompt": [1, 2, 3]}):
            with pytest.raises(epo_client.StateError, match=f'job "{job}" is of another model'):
                client.job(job).attribute(**arguments)


@pytest.fixture
def dies_at_the_third_token(server, tiny, epo_client, monkeypatch):
    """dies_at_the_third_token(back) -> the address of a server that is killed while it attributes, and comes back if told to."""
    from epo_client import attribution

    def start(back):
        first = server(tiny)
        add, threads = attribution.Parts.add, []

        def restart():
            first.kill()
            if back:
                time.sleep(0.5)
                server(tiny, state_dir=first.state_dir, port=int(first.address.rsplit(":", 1)[1]))

        def add_and_kill(parts, response):
            add(parts, response)
            if len(parts.tokens) == 3 and not threads:
                threads.append(threading.Thread(target=restart))
                threads[0].start()
                threads[0].join()

        monkeypatch.setattr(attribution.Parts, "add", add_and_kill)
        return first.address

    return start


LONG = list(range(50))


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
def test_a_server_that_dies_midway_and_comes_back(dies_at_the_third_token, epo_client, client, neuron, kind, capsys):
    expected = said(client.attribute(neuron, LONG, substitutes=24, progress=False))
    capsys.readouterr()
    address = dies_at_the_third_token(back=True)
    if kind == "plain":
        with epo_client.Client(address) as dying:
            got = dying.attribute(neuron, LONG, substitutes=24)
    else:
        async def main():
            async with epo_client.AsyncClient(address) as dying:
                return await dying.attribute(neuron, LONG, substitutes=24)

        got = asyncio.run(main())
    assert said(got) == expected
    shown = capsys.readouterr().err
    assert "trying again: " in shown and "50/50" in shown


def test_a_server_that_dies_for_good(dies_at_the_third_token, epo_client, neuron, monkeypatch):
    from epo_client import client

    monkeypatch.setattr(client, "CALL_PATIENCE", 1.0)
    address = dies_at_the_third_token(back=False)
    with epo_client.Client(address) as dying:
        dying.model()
        with pytest.raises(epo_client.UnavailableError, match=f"cannot reach the server at {address}"):
            dying.attribute(neuron, LONG, substitutes=24)


def test_a_stream_that_leaves_tokens_out(epo_client, neuron):
    """Messages as a faulty server would send them."""
    from epo_client import attribution
    from epo_client._proto import attribution_pb2, frontier_pb2
    from epo_client.progress import TokenBar

    parts = attribution.Parts(TokenBar(False))
    with pytest.raises(epo_client.UnavailableError, match="the stream ended before the attribution did"):
        parts.whole(neuron)
    parts.add(attribution_pb2.AttributeResponse(prompt=frontier_pb2.ScoredPrompt(ids=[4, 5])))
    parts.add(attribution_pb2.AttributeResponse(token=attribution_pb2.TokenAttribution(id=4)))
    with pytest.raises(epo_client.UnavailableError):
        parts.whole(neuron)
    parts.add(attribution_pb2.AttributeResponse(token=attribution_pb2.TokenAttribution(position=1, id=5)))
    assert len(parts.whole(neuron).tokens) == 2


# How it is shown

NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></div>", " a&amp;b", "\x1b[2J", "\n\t\r", "\0", "\u202eabc", "שלום",
         "\u0301", "日本", "\\n", "'", " ", "\u2028", "\ue000", "\ufffd"]
SHOWN = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></div>", " a&amp;b", "\\x1b[2J", "\\n\\t\\r", "\\x00", "\\u{202e}abc",
         "שלום", "\\u{301}", "日本", "\\\\n", "'", " ", "\\u{2028}", "\\u{e000}", "\ufffd"]


class Page(html.parser.HTMLParser):
    """The elements of a page as (name, attributes, text inside), and that each is closed where it should be."""

    def __init__(self, source):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.elements.append([tag, dict(attrs), ""])
        self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def of(self, name):
        """What has this class or, if nothing has, this tag."""
        return [e for e in self.elements if name in e[1].get("class", "").split()] or [e for e in self.elements if e[0] == name]


def attribution_of(epo, tokens):
    """Of (text, drop to best, drop to worst, targets of substitutes)."""
    made = []
    for position, (text, best, worst, targets) in enumerate(tokens):
        tried = tuple(epo.Substitute(i, NASTY[i % len(NASTY)], target, 4.5 + i) for i, target in enumerate(targets))
        made.append(epo.TokenAttribution(position, 100 + position, text, tried, best, worst))
    prompt = epo.ScoredPrompt(tuple(t.id for t in made), "".join(t.text for t in made), 2.5, 6.25)
    return epo.Attribution(epo.neuron(8, 1), prompt, tuple(made))


def style(element):
    """Its inline style's numbers in per cent, and its background."""
    return {name: float(value[:-1]) if value.endswith("%") else value for name, value in re.findall(r"([a-z]+):([^;]+)", element[1]["style"])}


def check_self_contained(source):
    page = Page(source)
    assert {e[0] for e in page.elements} <= {"div", "style", "p", "span", "bdi", "table", "thead", "tbody", "tr", "th", "td"}
    assert {name for e in page.elements for name in e[1]} <= {"class", "style", "tabindex", "role", "aria-label", "dir"}
    [sheet] = page.of("style")
    for forbidden in ("url(", "@import", "expression(", "<"):
        assert forbidden not in sheet[2]
    # Each rule is for what is inside: a page's own look is left alone.
    assert all(".epo-" in part for selector in re.findall(r"([^{}]+)\{", sheet[2]) for part in selector.split(","))
    assert not [c for c in source if ord(c) < 0x20 and c != "\n"] and not set(source) & set("\u202e\u2028\ue000")
    return page


def test_a_strip_of_bars(epo_client):
    drops = [(" a", 1.0, 4.0), (" b", 0.0, 1.0), (" c", -0.5, 2.0), (" d", 0.25, 0.0)]
    attribution = attribution_of(epo_client, [(*drop, [2.5 - drop[2], 2.0, 1.9, 1.8, 2.5 - drop[1]]) for drop in drops])
    page = check_self_contained(attribution._repr_html_())
    assert [e[1]["tabindex"] for e in page.of("epo-token")] == ["0"] * 4
    assert [e[2] for e in page.of("epo-text")] == [" a", " b", " c", " d"]
    # From -0.5 to 1: zero is at a third, and one unit is two thirds.
    bars = [style(bar) for bar in page.of("epo-bar")]
    assert [(bar["bottom"], bar["height"]) for bar in bars] == [
        pytest.approx(wanted, abs=0.01) for wanted in [(33.33, 66.67), (33.33, 0), (0, 33.33), (33.33, 16.67)]]
    assert [style(line)["bottom"] for line in page.of("epo-zero")] == [pytest.approx(33.33, abs=0.01)] * 4
    # Redder is more at stake.
    reds = [int(bar["background"][1:3], 16) for bar in bars]
    assert reds[0] > reds[2] > reds[1] > reds[3] and bars[0]["background"] == "#d1495b" and bars[3]["background"] == "#7f8fa6"
    [legend] = page.of("epo-legend")
    assert "up to 1 (below the line, down to −0.5: it does better)" in legend[2] and legend[2].endswith("0  4")
    assert [e[1]["aria-label"] for e in page.of("epo-token")][2] == '" c": drop to the best substitute −0.5, to the worst 2'
    assert page.of("epo-title")[0][2] == "L8.N1 activation 2.5 at cross-entropy 6.25: what it owes to each token"


def test_details_of_a_token(epo_client):
    targets = [1.0, 3.25, -2.0, 2.125, float("nan"), 0.5]
    page = check_self_contained(attribution_of(epo_client, [(" dog", -0.75, 4.5, targets)])._repr_html_())
    [tip] = page.of("epo-tip")
    assert tip[2].startswith('" dog" at 0, id 100: drop to the best substitute −0.75, to the worst 4.5')
    cells = [e[2] for e in page.elements if e[0] in ("th", "td")]
    quoted = [f'"{SHOWN[i]}"' for i in range(6)]
    quoted[1] = '"\\"><img src=x onerror=alert(1)>"'
    assert cells == ["", "token", "target", "cross-entropy", "as it is", '" dog"', "2.5", "6.25", "best 1", quoted[1], "3.25", "5.5",
                     "best 2", quoted[3], "2.125", "7.5", "best 3", quoted[0], "1", "4.5", "worst", quoted[2], "−2", "6.5"]


def test_texts_of_every_kind(epo_client):
    source = attribution_of(epo_client, [(text, 1.0, 2.0, [1.5]) for text in NASTY])._repr_html_()
    page = check_self_contained(source)
    texts = page.of("epo-text")
    assert [e[2] for e in texts] == SHOWN
    # Each text's own direction stays its own.
    assert {e[0] for e in texts} == {"bdi"} and [e for e in page.elements if e[1].get("dir")] == [page.elements[0]] and page.elements[0][1]["dir"] == "ltr"
    assert page.elements[0][2].count("שלום") == sum("שלום" in e[2] for e in page.of("bdi")) == 3 and "<script" not in source and "<img" not in source


@pytest.mark.parametrize("tokens", [
    [(" a", 0.0, 0.0, [2.5] * 4)],
    [(" a", 0.0, 0.0, [])],
    [(" a", float("nan"), float("nan"), [float("nan")]), (" b", 1.0, 2.0, [0.5])],
    [(" a", float("inf"), float("inf"), [float("-inf")]), (" b", 1.0, 2.0, [0.5])],
    [(" a", -1.0, -0.5, [3.0, 3.5])],
])
def test_drops_that_make_no_scale(epo_client, tokens):
    attribution = attribution_of(epo_client, tokens)
    page = check_self_contained(attribution._repr_html_())
    assert len(page.of("epo-token")) == len(tokens) == len(attribution.table)
    for bar in map(style, page.of("epo-bar")):
        assert 0 <= bar["bottom"] <= 100 and 0 <= bar["height"] <= 100 and bar["bottom"] + bar["height"] <= 100.01
        assert re.fullmatch("#[0-9a-f]{6}", bar["background"])
    finite = [token for token in attribution.tokens if math.isfinite(token.drop_to_best)]
    assert len([e for e in page.elements if e[1].get("class") == "epo-bar"]) == len(finite)


def test_what_a_server_says_is_shown(run):
    attribution = run.attribute(progress=False)
    page = check_self_contained(attribution._repr_html_())
    assert len(page.of("epo-token")) == len(page.of("epo-bar")) == len(page.of("epo-tip")) == 6
    heights = [style(bar)["height"] for bar in page.of("epo-bar")]
    drops = [abs(token.drop_to_best) for token in attribution.tokens]
    assert heights == pytest.approx([drop * heights[0] / drops[0] for drop in drops], abs=0.02 + 0.02 * max(drops) / drops[0])
