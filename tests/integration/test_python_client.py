"""The Python client against real servers: from submission to results, and what can go wrong on the way."""

import asyncio
import datetime
import inspect
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


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.02)


def raw_frontier(running, stubs, job, kind="LAMBDA"):
    request = stubs.service.GetFrontierRequest(id=job, kind=kind)
    return [(tuple(p.ids), p.text, p.target, p.cross_entropy) for p in running.stub.GetFrontier(request).points]


def rows(frontier):
    return [(tuple(r.ids.tolist()), r.text, r.target, r.xentropy) for r in frontier.itertuples()]


def test_a_dream_from_submission_to_results(epo_client, client, running, stubs, neuron, capsys):
    run = client.dream(neuron, iterations=12, **SPEC)
    assert repr(run).startswith(f"Run({run.id}, L2.N5 activation, ") and run.id in run._repr_html_()
    steps = list(run)
    assert run.state == "SUCCEEDED" and run.ended
    assert [step.index for step in steps] == list(range(12))
    assert [step.restart_penalty for step in steps] == [2.0, *[None] * 11]
    assert steps[-1].evaluations == run.job.evaluations and steps[-1].seconds > 0
    assert [slot.penalty for slot in steps[-1].slots] == pytest.approx([0.1, 10.0])
    assert "12/12" in capsys.readouterr().err

    frontier = run.frontier()
    expected = raw_frontier(running, stubs, run.id)
    assert rows(frontier) == expected == rows(steps[-1].frontier) and len(expected) > 1
    assert list(frontier.columns) == ["target", "xentropy", "text", "ids"] and frontier.columns.name is None
    assert frontier.attrs == {"job": run.id, "state": "SUCCEEDED", "steps": 12, "iterations": 12, "partial": False}
    assert rows(run.frontier("pareto")) == raw_frontier(running, stubs, run.id, "PARETO")

    history = run.history()
    raw = list(running.stub.GetHistory(stubs.service.GetHistoryRequest(id=run.id)))
    assert history.ids.shape == (12, 10, 6) and history.keep.shape == (12, 2) and not history.partial
    for i, iteration in enumerate(raw):
        assert history.ids[i].tolist() == [list(prompt.ids) for prompt in iteration.ids]
        assert history.target[i].tolist() == list(iteration.target)
        assert history.xentropy[i].tolist() == list(iteration.cross_entropy)
        assert history.keep[i].tolist() == list(iteration.keep)
    built = epo_client.build_pareto_frontier(history)
    assert [(tuple(i), t, x) for i, t, x in zip(built.ids.tolist(), built.target, built.xentropy)] == [(i, t, x) for i, _, t, x in expected]
    # Survivors of a step are the parents of the next.
    for before, after in zip(range(11), range(1, 12)):
        assert np.array_equal(history.ids[before][history.keep[before]], history.ids[after][:2])


def test_the_bar_tells_the_jobs_state(client, neuron, capsys):
    run = client.dream(neuron, iterations=4, **SPEC)
    for _ in run:
        # Longer than between two drawings of a bar.
        time.sleep(0.15)
    shown = capsys.readouterr().err
    assert f"{run.id[:8]} running" in shown and f"{run.id[:8]} succeeded" in shown


def test_saved_and_loaded(epo_client, client, neuron, tmp_path):
    run = client.dream(neuron, iterations=5, **SPEC).wait(progress=False)
    run.save(tmp_path / "run.npz")
    loaded = epo_client.load(tmp_path / "run.npz")
    assert loaded.job == run.job and not loaded.partial
    assert rows(loaded.frontier) == rows(run.frontier())
    assert np.array_equal(loaded.history.target, run.history().target)
    assert loaded.plot_frontier().get_title(loc="left") == run.plot_frontier().get_title(loc="left")


def test_a_kind_of_frontier_that_there_is_not(client, neuron):
    run = client.dream(neuron, iterations=1, **SPEC).wait(progress=False)
    assert len(run.frontier("PARETO")) >= len(run.frontier("lambda"))
    for kind in ("foo", None):
        with pytest.raises(ValueError, match=f"there is no kind {kind!r}; give 'lambda' or 'pareto'"):
            run.frontier(kind)


def test_survivors_alone_give_the_whole_frontier(client, running, stubs, neuron):
    whole = client.dream(neuron, iterations=8, seed=3, **SPEC).wait(progress=False)
    reduced = client.dream(neuron, iterations=8, seed=3, history="frontier", **SPEC).wait(progress=False)
    assert rows(reduced.frontier()) == rows(whole.frontier())
    assert reduced.history().ids.shape == (8, 2, 6)


def test_a_frontier_below_a_ceiling(epo_client, client, neuron):
    free = client.dream(neuron, iterations=12, **SPEC).wait(progress=False)
    ceiling = float(np.median(free.history().xentropy))
    run = client.dream(neuron, iterations=12, constraints={"max_cross_entropy": ceiling}, **SPEC).wait(progress=False)
    history, frontier = run.history(), run.frontier()
    assert history.max_cross_entropy == ceiling < history.xentropy.max() and len(frontier) > 1
    built = epo_client.build_pareto_frontier(history)
    assert built.xentropy.tolist() == frontier.xentropy.tolist() and built.ids.tolist() == [ids.tolist() for ids in frontier.ids]


def test_jobs_made_before(epo_client, client, neuron):
    made = [client.dream(neuron, iterations=1, seed=seed, **SPEC).wait(progress=False).id for seed in range(3)]
    assert [run.id for run in client.jobs()][:3] == made[::-1]
    assert made[0] in [run.id for run in client.jobs("succeeded")]
    assert made[0] not in [run.id for run in client.jobs("RUNNING", "QUEUED")]
    again = client.job(made[0])
    assert again.ended and [step.index for step in again.steps(progress=False)] == [0]
    assert list(again.steps(first=1, progress=False)) == []
    request_id = "5a4f51f8-04f0-4c0a-8d4e-0c51b7a0f4a9"
    twice = [client.dream(neuron, iterations=2, request_id=request_id, **SPEC).id for _ in range(2)]
    assert twice[0] == twice[1]
    with pytest.raises(epo_client.StateError):
        client.dream(neuron, iterations=3, request_id=request_id, **SPEC)


def test_scores_tokens_and_model(client, neuron):
    tokens = client.tokenize("a prompt")
    assert "".join(text for _, text in tokens) == "a prompt"
    ids = [token for token, _ in tokens]
    scores = client.score(neuron, ["a prompt", ids, np.array(ids)])
    assert scores.text.tolist() == ["a prompt"] * 3 and scores.target.nunique() == 1 and scores.xentropy.nunique() == 1
    assert client.model().layers > 2 and client.model().architecture == "phi"


def test_every_field_of_a_spec_has_its_argument(epo_client, client, stubs, neuron):
    deadline = datetime.datetime.now().astimezone() + datetime.timedelta(hours=1, microseconds=5)
    given = {
        "tokens": 6, "population": np.int64(2), "children_per_parent": 4, "top_k": 16, "penalty_min": np.float32(0.5), "penalty_max": 5,
        "iterations": 1, "restart_period": 7, "restart_penalty": (1, 3), "seed": 2**64 - 1, "allow_special_tokens": np.bool_(True),
        "initial_prompts": [[1, 2, 3, 4, 5, 6], np.arange(6)], "priority": 60, "deadline": deadline, "history": "frontier",
    }
    run = client.dream(neuron, **given)
    spec = run.job.spec
    for name in ("tokens", "population", "children_per_parent", "top_k", "penalty_min", "penalty_max", "iterations", "restart_period", "seed",
                 "allow_special_tokens", "priority"):
        assert getattr(spec, name) == given[name], name
    assert (spec.restart_penalty.low, spec.restart_penalty.high) == (1, 3)
    assert [list(prompt.ids.ids) for prompt in spec.initial_prompts] == [[1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5]]
    assert spec.deadline.ToDatetime(datetime.timezone.utc) == deadline
    assert spec.history == stubs.job.HistoryMode.Value("FRONTIER")
    assert client.dream(neuron, restart_penalty=1.5, iterations=1, **SPEC).job.spec.restart_penalty.high == 1.5
    # What is left out, or None, takes the server's default.
    assert client.dream(neuron, iterations=1, top_k=16, restart_period=None).job.spec.restart_period == 50


@pytest.mark.parametrize("field, value, kind, match", [
    ("iteration", 3, TypeError, "dream has no field 'iteration'; did you mean iterations"),
    ("zzz", 3, TypeError, "no field 'zzz'; there are objective, tokens, population"),
    ("iterations", "many", TypeError, "dream.iterations"),
    ("iterations", 2**40, ValueError, "dream.iterations: .*1099511627776"),
    ("seed", -1, ValueError, "dream.seed"),
    ("history", "none", ValueError, "dream.history: 'none' is none of its values"),
    ("restart_penalty", (1, 2, 3), TypeError, r"dream.restart_penalty: give a number or \(low, high\)"),
    ("restart_penalty", {"lo": 1}, TypeError, "dream.restart_penalty has no field 'lo'; did you mean low"),
    ("initial_prompts", "a text", TypeError, "dream.initial_prompts: give a list"),
    ("initial_prompts", [["a", "b"]], TypeError, r"dream.initial_prompts\[0\].ids.ids"),
    ("initial_prompts", [7], TypeError, r"dream.initial_prompts\[0\]: give a list, not 7"),
    ("deadline", "tomorrow", TypeError, "dream.deadline: give a datetime"),
])
def test_arguments_that_cannot_be_meant(client, neuron, field, value, kind, match):
    with pytest.raises(kind, match=match) as caught:
        client.dream(neuron, **{field: value})
    assert str(caught.value).count("dream") == 1


def test_objectives_of_every_kind(epo_client, client):
    plain, term = epo_client.neuron(0, 0), epo_client.objective("neuron", layer=0, neuron=0)
    assert plain.terms == term.terms and plain.label == term.label == "L0.N0 activation" and repr(plain) == "Objective(L0.N0 activation)"
    neuron = epo_client.neuron(2, 5)
    text = "a prompt"
    one = client.score(neuron, [text]).target[0]
    weighted = epo_client.objective("neuron", layer=2, neuron=5, weight=2, position=-1)
    assert client.score(epo_client.combine(neuron, weighted, goal="minimize"), [text]).target[0] == pytest.approx(-3 * one)
    assert epo_client.combine(neuron, weighted, goal="minimize").label == "-(L2.N5 activation + 2 × L2.N5 activation)"
    # A direction by its numbers, and by the name of the uploaded ones; along two at once is the sum.
    rows = np.random.default_rng(0).normal(size=(2, client.model().hidden_size))
    name = client.upload_vector(rows)
    made = [epo_client.objective("direction", layer=1, point="post_block", vector=v)
            for v in (rows[0], rows[1].tolist(), {"name": name, "row": 1}, rows.sum(axis=0))]
    first, second, named, both = (client.score(direction, [text]).target[0] for direction in made)
    assert second == named != first and both == pytest.approx(first + second, rel=1e-4) and made[0].label == "L1 direction"
    difference = epo_client.objective("logit_difference", token=client.tokenize(text)[0][0], other=client.tokenize(text)[-1][0])
    assert client.dream(difference, iterations=1, **SPEC).wait(progress=False).objective.label.startswith("logit of token ")
    # Around the prompt.
    assert client.score(neuron, [text], contexts=[{"prefix": "Once"}]).target[0] != one
    for wrong, match in [(lambda: epo_client.objective("neurone", layer=1), "did you mean neuron"),
                         (lambda: epo_client.objective("neuron", index=1), "objective.neuron has no field 'index'"),
                         (lambda: epo_client.objective("direction", vector="a", layer="b"), "objective.direction.layer"),
                         (lambda: epo_client.objective("direction", vector=["a"]), "give numbers or the name of an uploaded"),
                         (lambda: epo_client.combine(plain, goals="minimize"), "did you mean goal"),
                         (lambda: client.dream("L2.N5"), "give an objective, such as neuron"),
                         (lambda: client.score(5, ["a"]), "score.objective")]:
        with pytest.raises(TypeError, match=match):
            wrong()


def test_the_server_names_every_bad_field(epo_client, client):
    with pytest.raises(epo_client.InvalidArgumentError) as caught:
        client.dream(epo_client.neuron(99, 5), tokens=1, iterations=0)
    violations = caught.value.violations
    assert sorted(v.field for v in violations) == ["spec.iterations", "spec.objective.neuron.layer", "spec.tokens"]
    assert str(caught.value).splitlines() == [f"{v.field}: {v.description}" for v in violations]
    assert caught.value.reason == "INVALID_FIELD" and caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_job_under_way_is_partial_and_says_so(epo_client, client, neuron):
    run = client.dream(neuron, iterations=1_000_000, **SPEC)
    for step in run.steps(progress=False):
        if step.index == 4:
            break
    # Leaving the loop left the job alone.
    assert run.refresh().state == "RUNNING"
    frontier, history, results = run.frontier(), run.history(), run.results()
    assert frontier.attrs["partial"] and frontier.attrs["state"] == "RUNNING" and 5 <= frontier.attrs["steps"] < 1_000_000
    assert frontier.columns.name == f"partial: {frontier.attrs['steps']} of 1000000 steps" and frontier.columns.name in frontier.to_html()
    assert history.partial and len(history) >= 5 and "partial" in repr(history)
    assert results.partial and "partial" in repr(results)
    assert "(partial: " in results.plot_thresholds().get_title(loc="left")
    # A later look adds what is new.
    until(lambda: run.refresh().job.completed_iterations > len(history), "further step")
    assert len(run.history()) > len(history)
    assert run.pause().state == "PAUSED" and run.resume().state in ("QUEUED", "RUNNING")
    assert run.cancel().state == "CANCELLED"
    assert run.frontier().attrs["partial"] and run.history().partial
    steps = run.job.completed_iterations
    assert [step.index for step in run.steps(first=steps - 3, progress=False)] == list(range(steps - 3, steps))
    with pytest.raises(epo_client.StateError, match="already ended"):
        run.cancel()


def test_a_job_without_steps(epo_client, client, neuron):
    busy = [client.dream(neuron, iterations=1_000_000, **SPEC) for _ in range(2)]
    waiting = client.dream(neuron, iterations=3, **SPEC)
    until(lambda: waiting.refresh().job.queue_position == 1, "place in the queue")
    for look in (waiting.frontier, waiting.history, waiting.results, waiting.plot_frontier, lambda: waiting.save("none.npz")):
        with pytest.raises(epo_client.NoStepsError, match=f"job {waiting.id} has no step yet .QUEUED, place 1 in the queue.; wait for it"):
            look()
    waiting.cancel()
    assert list(waiting.steps(progress=False)) == []
    with pytest.raises(epo_client.NoStepsError, match="CANCELLED, 0 of 3 steps.; it ended without one"):
        waiting.frontier()
    for run in busy:
        run.cancel()


def test_a_deleted_job(epo_client, client, neuron):
    run = client.dream(neuron, iterations=2, **SPEC).wait(progress=False)
    history = run.history()
    run.delete()
    for look in (run.refresh, run.frontier, run.history, run.wait, lambda: list(run), run.delete, lambda: client.job(run.id)):
        with pytest.raises(epo_client.NotFoundError, match=f'there is no job "{run.id}"') as caught:
            look()
        assert caught.value.reason == "JOB_NOT_FOUND" and caught.value.metadata == {"id": run.id}
    assert len(history) == 2


def test_a_job_that_fails(epo_client, client, neuron):
    deadline = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.5)
    run = client.dream(neuron, iterations=1_000_000, deadline=deadline, **SPEC)
    seen = []
    with pytest.raises(epo_client.JobFailedError, match=f"job {run.id} failed: .*deadline") as caught:
        seen.extend(run.steps(progress=False))
    assert caught.value.code.name == "DEADLINE_EXCEEDED" and run.state == "FAILED" and seen
    with pytest.raises(epo_client.JobFailedError):
        run.wait(progress=False)
    # What came before is there.
    assert len(run.history()) == len(seen) and run.frontier().attrs["partial"]


def test_nobody_there(epo_client):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with epo_client.Client(address) as client, pytest.raises(epo_client.UnavailableError) as caught:
            client.model()
        assert time.monotonic() - start < 5
        assert str(caught.value).startswith(f"cannot reach the server at {address}: ") and "is epo-server running there?" in str(caught.value)


    # Somebody who takes the connection and never speaks.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with epo_client.Client(f"127.0.0.1:{silent.getsockname()[1]}") as client, pytest.raises(epo_client.UnavailableError, match="cannot reach"):
            client.model()
        assert time.monotonic() - start < 20


def test_addresses_and_keys(epo_client, monkeypatch, tmp_path):
    monkeypatch.setenv("EPO_SERVER", "gpu1")
    assert epo_client.Client().address == "gpu1:50051" and epo_client.Client("gpu2:7").address == "gpu2:7"
    with pytest.raises(ValueError, match="gpu1:50051 where everybody on the way can read it; give tls=True"):
        epo_client.Client(api_key="epo_secret")
    monkeypatch.setenv("EPO_API_KEY", "epo_secret")
    with pytest.raises(ValueError, match="can read it"):
        epo_client.Client()
    epo_client.Client("localhost:7").close()
    with pytest.raises(ValueError, match="api_key is no API key"):
        epo_client.Client("localhost:7", api_key="two words")
    with pytest.raises(ValueError, match="go together"):
        epo_client.Client(tls=epo_client.Tls(key="key.pem"))
    with pytest.raises(FileNotFoundError):
        epo_client.Client(tls=epo_client.Tls(ca=tmp_path / "none.pem"))


def test_tls_and_api_keys(epo_client, server, tiny, bin_dir, make_authority, neuron, tmp_path):
    import subprocess

    import grpc

    authority, stranger = make_authority("authority"), make_authority("stranger")
    certificate, key = authority.issue("server")
    made = subprocess.run([bin_dir / "epo-server", "--new-api-key", "alice:submit"], check=True, capture_output=True, text=True)
    api_key, line = made.stdout.splitlines()
    keys = tmp_path / "keys"
    keys.write_text(line + "\n")
    keys.chmod(0o600)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    running = server(tiny, "--tls-cert", certificate, "--tls-key", key, "--api-keys", keys, credentials=credentials)
    tls = epo_client.Tls(ca=authority.certificate)
    with epo_client.Client(running.address, api_key=api_key, tls=tls) as client:
        assert client.dream(neuron, iterations=2, **SPEC).wait(progress=False).job.client == "alice"

    async def asynchronously():
        async with epo_client.AsyncClient(running.address, api_key=api_key, tls=tls) as client:
            run = await client.dream(neuron, iterations=2, **SPEC)
            return [step.index async for step in run.steps(progress=False)]

    assert asyncio.run(asynchronously()) == [0, 1]
    with epo_client.Client(running.address, tls=tls) as client, pytest.raises(epo_client.AccessError):
        client.model()
    for wrong, match in [(epo_client.Tls(ca=stranger.certificate), "its certificate is not from whom is trusted"),
                         (False, r"does it want TLS \(tls=True\)")]:
        with epo_client.Client(running.address, tls=wrong) as client, pytest.raises(epo_client.UnavailableError, match=match):
            client.model()
    # A machine where only another name is certified.
    certificate, key = authority.issue("elsewhere", names="DNS:elsewhere")
    other = server(tiny, "--tls-cert", certificate, "--tls-key", key, wait=False)
    until(lambda: "listening on" in other.log(), "server")
    with epo_client.Client(other.address, tls=tls) as client, pytest.raises(epo_client.UnavailableError, match="certificate is for other names"):
        client.model()


def restart_while(server, tiny, running, epo_client, follow):
    """SIGTERM, then SIGKILL, each with a restart on the same port and state, while `follow(address, at_step)` follows a job; it calls
    at_step(index) and waits for what that returns."""
    port = int(running.address.rsplit(":", 1)[1])
    servers, threads = [running], []

    def restart(end):
        servers[-1].stop(end)
        time.sleep(0.5)
        servers.append(server(tiny, state_dir=running.state_dir, port=port))

    def at_step(index):
        ends = {20: signal.SIGTERM, 60: signal.SIGKILL}
        if index in ends:
            for thread in threads:
                thread.join()
            threads.append(threading.Thread(target=restart, args=[ends[index]]))
            threads[-1].start()

    result = follow(running.address, at_step)
    for thread in threads:
        thread.join()
    assert len(servers) == 3
    return result, servers[-1]


def test_a_loop_outlives_restarts(epo_client, server, tiny, neuron, capsys):
    def follow(address, at_step):
        with epo_client.Client(address) as client:
            run = client.dream(neuron, iterations=200, **SPEC)
            indices = []
            for step in run:
                indices.append(step.index)
                at_step(step.index)
            # A call of its own waits for a server that is about to come back.
            return indices, len(run.history())

    (indices, kept), _ = restart_while(server, tiny, server(tiny), epo_client, follow)
    assert indices == list(range(200)) and kept == 200
    shown = capsys.readouterr().err
    assert "trying again: cannot reach the server" in shown or "trying again: the server is shutting down" in shown


def test_an_asynchronous_loop_outlives_restarts(epo_client, server, tiny, neuron):
    def follow(address, at_step):
        async def main():
            async with epo_client.AsyncClient(address) as client:
                run = await client.dream(neuron, iterations=200, **SPEC)
                indices = []
                async for step in run.steps(progress=False):
                    indices.append(step.index)
                    await asyncio.to_thread(at_step, step.index)
                return indices, len(await run.history())

        return asyncio.run(main())

    (indices, kept), _ = restart_while(server, tiny, server(tiny), epo_client, follow)
    assert indices == list(range(200)) and kept == 200


def test_a_call_waits_for_a_server_that_restarts(epo_client, server, tiny, neuron):
    running = server(tiny)
    port = int(running.address.rsplit(":", 1)[1])
    with epo_client.Client(running.address) as client:
        run = client.dream(neuron, iterations=3, **SPEC).wait(progress=False)
        running.stop()
        thread = threading.Timer(1.0, lambda: server(tiny, state_dir=running.state_dir, port=port))
        thread.start()
        assert run.frontier().attrs["steps"] == 3
        thread.join()


def test_asyncio(epo_client, running, neuron, tmp_path):
    async def main():
        async with epo_client.AsyncClient(running.address) as client:
            runs = await asyncio.gather(*(client.dream(neuron, iterations=6, seed=seed, **SPEC) for seed in range(3)))

            async def follow(run):
                return [step.index async for step in run]

            assert await asyncio.gather(*map(follow, runs)) == [list(range(6))] * 3
            await runs[0].save(tmp_path / "run.npz")
            results = await runs[0].results()
            assert (await (await client.job(runs[0].id)).wait(progress=False)).state == "SUCCEEDED"
            assert {run.id for run in runs} <= {run.id async for run in client.jobs("SUCCEEDED")}
            assert "".join(text for _, text in await client.tokenize("a prompt")) == "a prompt"
            assert await client.upload_vector([1.0, 2.0]) == await client.upload_vector(np.array([1.0, 2.0]))
            assert len(await client.score(neuron, ["a prompt"])) == 1 and (await client.model()).architecture == "phi"
            endless = await client.dream(neuron, iterations=1_000_000, **SPEC)
            async for step in endless.steps(progress=False):
                if step.index == 3:
                    break
            assert (await endless.refresh()).state == "RUNNING" and (await endless.frontier()).attrs["partial"]
            assert (await endless.pause()).state == "PAUSED" and (await endless.resume()).state in ("QUEUED", "RUNNING")
            # A task that is cancelled while it follows leaves the job alone too.
            task = asyncio.create_task(endless.wait(progress=False))
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await endless.refresh()).state == "RUNNING"
            assert (await endless.cancel()).state == "CANCELLED"
            await endless.delete()
            with pytest.raises(epo_client.NotFoundError):
                await endless.history()
            with pytest.raises(epo_client.InvalidArgumentError) as caught:
                await client.dream(neuron, tokens=0)
            assert caught.value.violations[0].field == "spec.tokens"
            return results

    results = asyncio.run(main())
    assert rows(epo_client.load(tmp_path / "run.npz").frontier) == rows(results.frontier)

    async def nobody():
        async with epo_client.AsyncClient("127.0.0.1:1") as client:
            await client.model()

    with pytest.raises(epo_client.UnavailableError, match="cannot reach the server at 127.0.0.1:1"):
        asyncio.run(nobody())


def test_both_clients_offer_the_same(epo_client):
    def public(kind):
        return {name: list(inspect.signature(member).parameters) for name, member in inspect.getmembers(kind, inspect.isfunction)
                if not name.startswith("_")}

    assert public(epo_client.Client) == public(epo_client.AsyncClient)
    plots = {"plot_frontier", "plot_evolution", "plot_thresholds"}
    assert public(epo_client.Run).keys() - public(epo_client.AsyncRun).keys() == plots
    assert all(public(epo_client.Run)[name] == arguments for name, arguments in public(epo_client.AsyncRun).items())


def test_a_stream_that_leaves_updates_out_is_taken_up_again(epo_client):
    """Messages as a faulty server would send them."""
    from epo_client import watching
    from epo_client._proto import job_pb2, service_pb2

    def step(sequence):
        return service_pb2.WatchJobResponse(sequence=sequence, step=job_pb2.Step(index=sequence - 1))

    cursor = watching.Cursor("job")
    assert cursor.take(service_pb2.WatchJobResponse(created=job_pb2.Job(id="job"))) is None
    assert cursor.take(step(1)).index == 0 and cursor.take(step(1)) is None
    with pytest.raises(epo_client.UnavailableError, match="left out the updates 2 to 4") as caught:
        cursor.take(step(5))
    # Not a contact that resets the clock.
    assert cursor.request().after_sequence == 1 and not cursor.heard
    retry = watching.Retry(patience=0.3)
    delays = [retry.failed(caught.value)]
    time.sleep(0.35)
    with pytest.raises(epo_client.UnavailableError):
        retry.failed(caught.value)
    delays.append(retry.failed(caught.value, heard=True))
    assert all(0.1 <= delay <= 0.25 for delay in delays)
    newest = watching.Cursor("job", latest=True)
    assert newest.take(step(5)).index == 4 and newest.after == 5


def test_an_sdist_builds_the_same_package(root, client_package, tmp_path):
    import subprocess
    import sys
    import tarfile

    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=root / "client/python", check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path)
    source = next(tmp_path.glob("epo_client-*/"))
    options = ["--no-build-isolation", "--no-deps", "--quiet", "--disable-pip-version-check", "--target", tmp_path / "target"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    built = {p.name for p in (client_package / "epo_client/_proto").glob("*.py*")}
    assert built == {p.name for p in (tmp_path / "target/epo_client/_proto").glob("*.py*")} and "service_pb2.pyi" in built
    assert (tmp_path / "target/epo_client/py.typed").exists()
