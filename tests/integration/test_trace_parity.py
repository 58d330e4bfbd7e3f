"""The reference implementation's recorded runs, through the real server and command line."""

import json

import pytest


def approx(points, key):
    return pytest.approx([point[key] for point in points], abs=1e-4)


@pytest.mark.parametrize("name", ["phi-tiny", "llama-tiny"])
def test_trace(server, epo, root, name):
    model = root / "tests/parity" / name
    trace = json.loads((model / "trace.json").read_text())
    s = trace["settings"]
    running = server(model, dtype="float64")

    def ask(*args):
        done = epo(*args, "-o", "json", server=running)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    job = ask(
        "submit", "--wait", "--layer", s["layer"], "--neuron", s["neuron"], "--seed", s["seed"],
        "--tokens", s["seq_len"], "--population", s["population"], "--children", s["children_per_parent"],
        "--topk", s["topk"], "--penalty-min", s["penalty_min"], "--penalty-max", s["penalty_max"],
        "--iterations", s["iterations"], "--restart-every", s["restart_every"], "--restart-penalty", s["restart_penalty"],
    )
    assert job["state"] == "SUCCEEDED"

    iterations = ask("history", job["id"])["iterations"]
    assert [iteration["index"] for iteration in iterations] == list(range(s["iterations"]))
    for iteration, keep, survivors in zip(iterations, trace["keep"], trace["survivors"], strict=True):
        assert iteration["keep"] == keep, iteration["index"]
        assert [iteration["ids"][k] for k in keep] == survivors, iteration["index"]
    first = trace["first_iteration"]
    assert iterations[0]["ids"] == first["ids"]
    assert iterations[0]["target"] == pytest.approx(first["target"], abs=1e-4)
    assert iterations[0]["cross_entropy"] == pytest.approx(first["cross_entropy"], abs=1e-4)

    points = ask("frontier", job["id"])["points"]
    expected = sorted(trace["frontier"], key=lambda point: point["cross_entropy"])
    assert [point["ids"] for point in points] == [point["ids"] for point in expected]
    assert [point["target"] for point in points] == approx(expected, "target")
    assert [point["cross_entropy"] for point in points] == approx(expected, "cross_entropy")
    assert all(point["text"] for point in points)

    # Each point's prompt, scored by itself, has the point's scores.
    best = max(points, key=lambda point: point["target"])
    ids = ",".join(map(str, best["ids"]))
    [score] = ask("score", "--layer", s["layer"], "--neuron", s["neuron"], "--ids", ids)["scores"]
    assert score["ids"] == best["ids"]
    assert score["target"] == pytest.approx(best["target"], abs=1e-5)
    assert score["cross_entropy"] == pytest.approx(best["cross_entropy"], abs=1e-5)
