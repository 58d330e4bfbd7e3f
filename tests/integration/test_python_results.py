"""What the Python client does with results: frontiers, figures, files. No server."""

import os
import zipfile

import numpy as np
import pytest

os.environ["MPLBACKEND"] = "Agg"

ITERATIONS, POOL, TOKENS, SLOTS = 30, 12, 5, 3
TEXTS = ["plain words", " a space before", "line\nbreak", "costs $5 to $9, \\alpha_{2}", "ends in a null\0", "漢字 and é", "long " * 40, '"quoted"']


def make_history(epo, seed=0, iterations=ITERATIONS, partial=False):
    """Random scores with ties, of which cross-entropy buys target."""
    draw = np.random.default_rng(seed)
    xentropy = draw.uniform(2, 14, (iterations, POOL)).round(1).astype(np.float32)
    target = (np.sqrt(xentropy) + draw.normal(0, 0.5, xentropy.shape)).round(1).astype(np.float32)
    ids = draw.integers(0, 50, (iterations, POOL, TOKENS)).astype(np.int32)
    keep = draw.integers(0, POOL, (iterations, SLOTS)).astype(np.int32)
    return epo.History(ids, xentropy, target, keep, partial)


def make_results(epo, points=8, iterations=ITERATIONS, wanted=ITERATIONS):
    from epo_client._proto import job_pb2
    from epo_client.results import mark
    from epo_client.steps import ScoredPrompt, frame

    spec = job_pb2.JobSpec(iterations=wanted, restart_period=10, objective=epo.neuron(8, 1).message)
    state = job_pb2.Job.SUCCEEDED if iterations == wanted else job_pb2.Job.RUNNING
    job = job_pb2.Job(id="0b5c", spec=spec, state=state, completed_iterations=iterations)
    x = np.linspace(3, 12, points) if points > 1 else np.array([3.5])
    rows = [ScoredPrompt((i, 7, 9), TEXTS[i % len(TEXTS)], float(np.sqrt(v)), float(v)) for i, v in enumerate(x)]
    history = make_history(epo, iterations=iterations, partial=iterations < wanted)
    return epo.Results(job, history, mark(frame(rows), job))


def plain_frontier(histories):
    """The frontier by its definition, prompt by prompt."""
    pool = [
        (float(t), float(x), tuple(map(int, ids)))
        for h in histories
        for targets, xentropies, prompts in zip(h.target, h.xentropy, h.ids)
        for t, x, ids in zip(targets, xentropies, prompts)
        if t == t and x == x
    ]
    best = {}
    for k in range(1, 1000):
        penalty = 1.0 / (k * (50.0 / 999))
        target, xentropy, ids = min(pool, key=lambda p: -p[0] + penalty * p[1])
        best.setdefault(ids, (xentropy, target))
    return sorted((x, t, ids) for ids, (x, t) in best.items())


def points_of(frontier):
    return [(float(x), float(t), tuple(map(int, ids))) for x, t, ids in zip(frontier.xentropy, frontier.target, frontier.ids)]


@pytest.mark.parametrize("seed", range(5))
def test_frontier_is_what_its_definition_says(epo_client, seed):
    history = make_history(epo_client, seed)
    frontier = epo_client.build_pareto_frontier(history)
    assert points_of(frontier) == plain_frontier([history]) and len(frontier.target) > 3
    assert frontier.Xvs.shape == frontier.full_target.shape == frontier.full_xentropy.shape == (999,)
    assert frontier.full_target[frontier.unique].tolist() == frontier.target.tolist()
    assert frontier.full_xentropy[frontier.unique].tolist() == frontier.xentropy.tolist()
    # The largest penalty takes the most fluent prompts, the smallest the loudest.
    assert frontier.full_xentropy[0] == frontier.xentropy[0] and frontier.full_target[-1] == frontier.target[-1]
    assert frontier.text == []


def test_frontier_of_several_histories(epo_client):
    histories = [make_history(epo_client, seed) for seed in range(3)]
    frontier = epo_client.build_pareto_frontier(histories, decode=lambda ids: "-".join(map(str, ids)))
    assert points_of(frontier) == plain_frontier(histories)
    assert frontier.text == ["-".join(map(str, ids)) for ids in frontier.ids]
    one = epo_client.build_pareto_frontier(histories, Xvs=np.array([2.0]))
    expected = min((-float(t) + 2 * float(x), float(x)) for h in histories for t, x in zip(h.target.ravel(), h.xentropy.ravel()))
    assert one.xentropy.tolist() == [expected[1]] and one.Xvs.tolist() == [2.0]


def test_a_prompt_scored_twice_is_one_point_and_nan_is_none(epo_client):
    # The same prompt, whose second score differs in the last bits, as that of a child that became a parent may: each is the best under
    # some penalties.
    ids = np.array([[[1, 2], [3, 4], [3, 4]]], np.int32)
    scores = {"xentropy": np.array([[1, 5, 5.000001]], np.float32), "target": np.array([[1, 3, 3.0000003]], np.float32)}
    twice = epo_client.History(ids, keep=np.zeros((1, 1), np.int32), **scores)
    frontier = epo_client.build_pareto_frontier(twice)
    assert len(np.unique(frontier.full_target)) == 3
    assert points_of(frontier) == plain_frontier([twice]) == [(1, 1, (1, 2)), (5, 3, (3, 4))]

    history = make_history(epo_client)
    history.target[3, 3], history.xentropy[4, 4] = np.nan, np.nan
    frontier = epo_client.build_pareto_frontier(history)
    assert points_of(frontier) == plain_frontier([history])
    history.target[:] = np.nan
    with pytest.raises(ValueError, match="no scored prompt"):
        epo_client.build_pareto_frontier(history)


def test_what_is_above_the_ceiling_is_in_no_frontier(epo_client, tmp_path):
    import dataclasses

    free = make_history(epo_client)
    # The float32 next to 8.1 is above it, and the server compares with 8.1.
    free.xentropy[0, 0], free.target[0, 0] = 8.1, 100.0
    assert float(np.float32(8.1)) > 8.1 and epo_client.build_pareto_frontier(free).target.max() == 100
    history = dataclasses.replace(free, max_cross_entropy=8.1)
    below = dataclasses.replace(free, target=np.where(free.xentropy.astype(float) <= 8.1, free.target, np.nan))
    assert points_of(epo_client.build_pareto_frontier(history)) == plain_frontier([below]) and history.eligible.sum() < history.target.size
    # Each history has its own.
    other = make_history(epo_client, 1)
    assert points_of(epo_client.build_pareto_frontier([history, other])) == plain_frontier([below, other])
    part = history.subset(slice(3))
    assert part.max_cross_entropy == 8.1 and len(part) == 3
    with pytest.raises(ValueError, match="no scored prompt"):
        epo_client.build_pareto_frontier(dataclasses.replace(history, max_cross_entropy=0.5))
    # It is of the job, and comes with what was saved.
    results = make_results(epo_client)
    results.job.spec.constraints.max_cross_entropy = 8.1
    results.save(tmp_path / "run.npz")
    assert epo_client.load(tmp_path / "run.npz").history.max_cross_entropy == 8.1


def test_histories_of_different_lengths_make_no_frontier(epo_client):
    import dataclasses

    history = make_history(epo_client)
    longer = dataclasses.replace(history, ids=np.concatenate([history.ids, history.ids], axis=-1))
    with pytest.raises(ValueError, match="histories: their prompts have 5 and 10 tokens; give those of one length"):
        epo_client.build_pareto_frontier([history, longer])


def test_subset_and_names(epo_client):
    history = make_history(epo_client)
    part = history.subset(slice(5, 9))
    assert len(part) == 4 and len(history) == ITERATIONS
    for name in ("ids", "target", "xentropy", "keep"):
        assert np.array_equal(getattr(part, name), getattr(history, name)[5:9])
    assert repr(part) == "History(4 iterations of 12 prompts of 5 tokens)"


def test_a_frontier_of_nothing_is_refused(epo_client):
    history = make_history(epo_client)
    for histories, penalties, match in [([], None, "histories: there is none"), (history, [], "Xvs: give numbers"), (history, [0.5, np.nan], "Xvs: give numbers")]:
        with pytest.raises(ValueError, match=match):
            epo_client.build_pareto_frontier(histories, penalties)
    assert epo_client.build_pareto_frontier(iter([history]), [1, 2]).Xvs.tolist() == [1, 2]


def test_labels_tell_terms_apart(epo_client):
    term, combine = epo_client.objective, epo_client.combine
    first = epo_client.neuron(8, 1)
    for made, label in [
        (combine(first, term("neuron", layer=8, neuron=1, weight=0.5, constant_scale=3)), "L8.N1 activation + 0.5 × L8.N1 activation / 3"),
        (combine(first, term("logit", token=" + dog", weight=-2, measured_scale=True)), 'L8.N1 activation - 2 × logit of " + dog" / σ'),
        (combine(first, term("logit", token=" + dog"), combination="soft_min"), 'soft minimum of L8.N1 activation, logit of " + dog"'),
        (term("logit_difference", token=17, other=" cat"), 'logit of token 17 over " cat"'),
        (term("logit_difference", token=17), "logit of token 17 over all others"),
        (term("continuation", text="\u202e and so on, for a long time"), 'continuation "\\u202e and so on, for a long…"'),
        (term("continuation", text=[1, 2]), "continuation of 2 tokens"),
        (term("cosine", layer=3, text="a dog"), 'L3 cosine with "a dog"'),
        (term("attention", layer=5, head=2, key=0), "L5.H2 attention to 0"),
    ]:
        assert made.label == label


def same(a, b):
    assert a.job == b.job
    for name in ("ids", "target", "xentropy", "keep"):
        left, right = getattr(a.history, name), getattr(b.history, name)
        assert left.dtype == right.dtype and np.array_equal(left, right), name
    assert a.history.partial == b.history.partial == a.partial
    assert a.frontier.drop(columns="ids").equals(b.frontier.drop(columns="ids"))
    assert [ids.tolist() for ids in a.frontier.ids] == [ids.tolist() for ids in b.frontier.ids]
    assert a.frontier.attrs == b.frontier.attrs and a.frontier.columns.name == b.frontier.columns.name


@pytest.mark.parametrize("wanted", [ITERATIONS, 300])
def test_what_is_saved_is_loaded(epo_client, tmp_path, wanted):
    results = make_results(epo_client, wanted=wanted)
    path = tmp_path / "run.npz"
    path.write_text("an older file")
    results.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    loaded = epo_client.load(path)
    same(results, loaded)
    assert loaded.partial == (wanted == 300)
    assert loaded.objective.label == "L8.N1 activation"
    if loaded.partial:
        assert loaded.frontier.columns.name == "partial: 30 of 300 steps" and "partial: 30 of 300 steps" in loaded._repr_html_()
    # Anyone with numpy reads it.
    with np.load(path) as file:
        assert np.array_equal(file["target"], results.history.target)


def test_permissions_of_a_saved_file(epo_client, tmp_path):
    path = tmp_path / "run.npz"
    before = os.umask(0o027)
    try:
        make_results(epo_client).save(path)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        make_results(epo_client).save(path)
        assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(before)


def test_saving_where_one_cannot(epo_client, tmp_path):
    results = make_results(epo_client)
    with pytest.raises(FileNotFoundError):
        results.save(tmp_path / "no" / "run.npz")
    (tmp_path / "run.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        results.save(tmp_path / "run.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def refused(epo, path, match):
    with pytest.raises(epo.LoadError, match=match) as caught:
        epo.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def rewrite(source, to, **changes):
    with np.load(source) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(to, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})


def test_files_that_are_no_run(epo_client, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    make_results(epo_client).save(good)
    whole = good.read_bytes()
    with pytest.raises(FileNotFoundError):
        epo_client.load(tmp_path / "none.npz")
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        refused(epo_client, bad, "no saved run")
    bad.write_text("a text")
    refused(epo_client, bad, "no saved run")
    with bad.open("wb") as file:
        np.save(file, np.arange(3))
    refused(epo_client, bad, "no saved run")
    np.savez(bad, other=np.arange(3))
    refused(epo_client, bad, "it has no format")
    np.savez(bad, format=np.array([object()]))
    refused(epo_client, bad, "no saved run")
    with zipfile.ZipFile(bad, "w") as file:
        file.writestr("ids.npy", b"no array")
    refused(epo_client, bad, "no saved run")


def test_every_flipped_byte_is_harmless_or_said(epo_client, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    results = make_results(epo_client)
    results.save(good)
    whole = good.read_bytes()
    said = 0
    for place in range(0, len(whole), 37):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            loaded = epo_client.load(bad)
        except epo_client.LoadError as error:
            assert str(bad) in str(error)
            said += 1
        else:
            same(results, loaded)
    assert said > 50


def test_runs_that_do_not_fit_together(epo_client, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    results = make_results(epo_client)
    results.save(good)
    changes = {
        "it has no keep": {"keep": None},
        "has format 2": {"format": np.array(2)},
        "its format is no number": {"format": np.array([1, 2])},
        "its format is no number$": {"format": np.array("1")},
        "its job lacks an id": {"job": np.array("{}")},
        "a damaged run: maximum recursion": {"frontier": np.array("[" * 100_000)},
        "point 0 of its frontier lacks a text or a score": {"frontier": np.array('[{"target": null, "xentropy": 2, "text": "a", "ids": [1]}]')},
        "point 0 of its frontier has no list of token ids": {"frontier": np.array('[{"target": 1, "xentropy": 2, "text": "a", "ids": [1.5]}]')},
        "its frontier is no list": {"frontier": np.array("{}")},
        "a damaged run: .*completedIterations": {"job": np.array('{"completedIterations": "many"}')},
        "a damaged run": {"frontier": np.array('[{"target": 1}]')},
        "do not fit": {"target": results.history.target[:-1]},
        "do not fit together": {"keep": results.history.keep + POOL},
        "not fit": {"ids": results.history.ids.astype(np.float64)},
        "not fit together": {name: getattr(results.history, name)[:0] for name in ("ids", "target", "xentropy", "keep")},
    }
    for match, change in changes.items():
        rewrite(good, bad, **change)
        refused(epo_client, bad, match)


def drawn(ax):
    """The figure's renderer and size in pixels, once it is drawn."""
    figure = ax.figure
    figure.canvas.draw()
    return figure.canvas.get_renderer(), figure.bbox


def labels_of(ax):
    import matplotlib.text

    return [child for child in ax.get_children() if isinstance(child, matplotlib.text.Annotation)]


@pytest.mark.parametrize("points", [1, 2, 8, 40, 150])
def test_labels_of_the_frontier_do_not_collide(epo_client, points):
    results = make_results(epo_client, points)
    ax = results.plot_frontier()
    renderer, page = drawn(ax)
    labels = labels_of(ax)
    boxes = sorted((label.get_window_extent(renderer) for label in labels), key=lambda box: box.y0)
    texts = [super(type(label), label).get_window_extent(renderer) for label in labels]
    axes = ax.get_window_extent(renderer)
    assert len(labels) == points
    for lower, upper in zip(sorted(texts, key=lambda b: b.y0), sorted(texts, key=lambda b: b.y0)[1:]):
        assert lower.y1 <= upper.y0
    for box in texts:
        assert box.x0 >= axes.x1 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
    assert boxes
    line = ax.lines[0]
    assert np.allclose(line.get_xdata(), results.frontier.xentropy) and np.allclose(line.get_ydata(), results.frontier.target)
    assert ax.get_title(loc="left") == "L8.N1 activation: Pareto frontier"


def test_labels_show_what_prompts_hold(epo_client, recwarn):
    ax = make_results(epo_client).plot_frontier()
    drawn(ax)
    shown = [label.get_text() for label in labels_of(ax)]
    assert shown[:5] == ['"plain words"', '" a space before"', '"line\\nbreak"', '"costs $5 to $9, \\\\alpha_{2}"', '"ends in a null\\u0000"']
    assert shown[5] == '"\\u6f22\\u5b57 and é"' and shown[7] == '"\\"quoted\\""'
    assert shown[6].startswith('"long long') and shown[6].endswith('…"') and len(shown[6]) == 74
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_a_small_panel_labels_what_it_has_room_for(epo_client):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(4, 2))
    results = make_results(epo_client, 40)
    assert results.plot_frontier(ax) is ax
    renderer, _ = drawn(ax)
    labels = labels_of(ax)
    assert 4 < len(labels) < 15
    # Both ends are among them.
    assert {label.xy[0] for label in labels} >= {results.frontier.xentropy.min(), results.frontier.xentropy.max()}
    boxes = sorted((super(type(label), label).get_window_extent(renderer) for label in labels), key=lambda b: b.y0)
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in zip(boxes, boxes[1:]))


def test_evolution_draws_the_frontiers_of_prefixes(epo_client):
    results = make_results(epo_client, iterations=20, wanted=300)
    ax = results.plot_evolution([1, 5, 20])
    drawn(ax)
    for count, line in zip([1, 5, 20], ax.lines, strict=True):
        expected = plain_frontier([results.history.subset(slice(count))])
        assert np.allclose(line.get_xdata(), [x for x, _, _ in expected]) and np.allclose(line.get_ydata(), [t for _, t, _ in expected])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1 iteration", "5 iterations", "20 iterations"]
    assert ax.get_title(loc="left") == "L8.N1 activation: frontier over time (partial: 20 of 300 steps)"
    assert results.plot_evolution().lines[-1].get_label() == "20 iterations"
    for wrong in (0, 21):
        with pytest.raises(ValueError, match=f"after {wrong} of 20"):
            results.plot_evolution([wrong])


def test_thresholds_draw_the_best_below_each_and_the_restarts(epo_client):
    results = make_results(epo_client)
    ax = results.plot_thresholds([3, 8])
    drawn(ax)
    restarts = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in restarts] == [0, 10, 20]
    curves = [line for line in ax.lines if line.get_linestyle() == "-"]
    for level, line in zip([3, 8], curves, strict=True):
        for i, value in enumerate(line.get_ydata()):
            below = [float(t) for t, x in zip(results.history.target[i], results.history.xentropy[i]) if x < level]
            assert value == max(below) if below else np.isnan(value)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["restart", "below 3", "below 8"]
    assert len([line for line in results.plot_thresholds().lines if line.get_linestyle() == "-"]) == 5


def test_figures_close_to_nothing(epo_client):
    """One iteration, one point: nothing to draw a line through, and no error."""
    results = make_results(epo_client, points=1, iterations=1, wanted=1)
    for plot in (results.plot_frontier, results.plot_evolution, results.plot_thresholds):
        drawn(plot())


def test_figures_of_a_run_that_stays_above_its_ceiling(epo_client):
    """At first, or to the end."""
    import dataclasses

    import matplotlib.pyplot

    results = make_results(epo_client)
    results.history.xentropy[0] += 20
    late = dataclasses.replace(results, history=dataclasses.replace(results.history, max_cross_entropy=15.0))
    first, last = late.plot_evolution([1, 30]).lines
    assert len(first.get_xdata()) == 0 and len(last.get_xdata()) > 1
    never = dataclasses.replace(late, frontier=late.frontier.head(0), history=dataclasses.replace(late.history, max_cross_entropy=1.0))
    assert len(drawn(never.plot_frontier())) == 2 and not any(len(line.get_xdata()) for line in never.plot_evolution().lines)
    levels = [text.get_text() for text in never.plot_thresholds().get_legend().get_texts()]
    assert len(levels) == 6 and not any("nan" in level for level in levels)
    matplotlib.pyplot.close("all")


def test_without_matplotlib(client_package, tmp_path):
    import subprocess
    import sys

    code = "import sys; sys.modules['matplotlib'] = None\nimport epo_client.results as r\ntry: r._plots()\nexcept ImportError as e: print(e)"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(client_package)}, capture_output=True, text=True)
    assert "pip install 'epo-client[plot]'" in run.stdout, run.stderr
