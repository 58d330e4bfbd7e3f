"""EPO's search equals the reference implementation: on its recorded traces, and against its loop rewritten over transformers."""

import itertools
import json
import math

import pytest
import torch
from checkpoints import llama, phi, write
from plain import PlainModel

TOKENS_IN_TOKENIZER = 512  # Of the random checkpoints' 600 embedding rows.


@pytest.mark.parametrize("name", ["phi-tiny", "llama-tiny"])
def test_trace(core, root, name):
    trace = json.loads((root / "tests/parity" / name / "trace.json").read_text())
    s = trace["settings"]
    options = {
        "tokens": s["seq_len"], "population": s["population"], "children_per_parent": s["children_per_parent"],
        "top_k": s["topk"], "iterations": s["iterations"], "restart_period": s["restart_every"], "seed": s["seed"],
        "penalty_min": s["penalty_min"], "penalty_max": s["penalty_max"],
        "restart_penalty_low": s["restart_penalty"], "restart_penalty_high": s["restart_penalty"],
    }
    request = {"op": "search", "layer": s["layer"], "neuron": s["neuron"], "options": options}
    [answer] = core(root / "tests/parity" / name, [request], dtype="float64")

    iterations = answer["iterations"]
    assert len(iterations) == len(trace["survivors"]) == s["iterations"]
    for i, (iteration, keep, survivors) in enumerate(zip(iterations, trace["keep"], trace["survivors"], strict=True)):
        assert iteration["keep"] == keep, f"iteration {i}"
        assert [iteration["ids"][k] for k in keep] == survivors, f"iteration {i}"
    first = trace["first_iteration"]
    assert iterations[0]["ids"] == first["ids"]
    assert iterations[0]["target"] == pytest.approx(first["target"], abs=1e-4)
    assert iterations[0]["cross_entropy"] == pytest.approx(first["cross_entropy"], abs=1e-4)
    expected = sorted(trace["frontier"], key=lambda point: point["cross_entropy"])
    assert [point["ids"] for point in answer["frontier"]] == [point["ids"] for point in expected]
    for key in ("target", "cross_entropy"):
        assert [point[key] for point in answer["frontier"]] == pytest.approx([point[key] for point in expected], abs=1e-4)


def reference_search(plain, objective, o, allowed):
    """The reference implementation's loop, with every prompt scored whole; yields each iteration's pool, scores and survivors."""
    torch.manual_seed(o["seed"])
    slots, children = o["population"], o["population"] * o["children_per_parent"]
    penalties = torch.exp(torch.linspace(math.log(o["penalty_min"]), math.log(o["penalty_max"]), slots))
    allowed = torch.tensor(allowed)
    forbidden = torch.ones(plain.embedding.shape[0], dtype=torch.bool)
    forbidden[allowed] = False
    if o.get("initial_prompts"):
        parents = torch.tensor(o["initial_prompts"]).expand(slots, -1)
    else:
        parents = allowed[torch.randint(0, len(allowed), (slots, o["tokens"]))]
    parent_of = torch.arange(children) % slots
    for i in range(o["iterations"]):
        gradient = plain.one_hot_gradients(parents.tolist(), objective, penalties).float()
        gradient[:, :, forbidden] = math.inf
        best = (-gradient).topk(o["top_k"]).indices
        position = torch.randint(0, o["tokens"], (children,))
        rank = torch.randint(0, o["top_k"], (children,))
        born = parents[parent_of].clone()
        born[torch.arange(children), position] = best[parent_of, position, rank]
        pool = torch.cat([parents, born])
        target, cross_entropy = (values.float() for values in plain.scores(pool.tolist(), objective))
        keep = (-target[None] + penalties[:, None] * cross_entropy[None]).argmin(1)
        restart = None
        if o["restart_period"] and i % o["restart_period"] == 0:
            low, high = o["restart_penalty_low"], o["restart_penalty_high"]
            restart = low + (high - low) * torch.rand(1).item()
            keep[:] = (-target + restart * cross_entropy).argmin()
        yield {"ids": pool, "target": target, "cross_entropy": cross_entropy, "keep": keep, "restart_penalty": restart}
        parents = pool[keep]


def reference_frontier(history):
    """build_pareto_frontier of the reference implementation: ids and float32 scores, distinct, by ascending cross-entropy."""
    ids = torch.cat([i["ids"] for i in history])
    target = torch.cat([i["target"] for i in history]).double()
    cross_entropy = torch.cat([i["cross_entropy"] for i in history]).double()
    penalties = 1.0 / torch.linspace(0, 50, 1000, dtype=torch.float64)[1:]
    best = {(-target + penalty * cross_entropy).argmin().item() for penalty in penalties}
    points = {tuple(ids[b].tolist()): (cross_entropy[b].item(), target[b].item()) for b in sorted(best)}
    return sorted(points.items(), key=lambda point: point[1])



DEFAULTS = {
    "tokens": 12, "population": 8, "children_per_parent": 8, "top_k": 64, "penalty_min": 0.1, "penalty_max": 10.0,
    "iterations": 12, "restart_period": 5, "restart_penalty_low": 2.0, "restart_penalty_high": 2.0, "seed": 0,
}
PHI = (phi, {"num_hidden_layers": 3}, (1, 7))
LLAMA = (llama, {"num_hidden_layers": 3, "tie_word_embeddings": True}, (2, 100))
GIVEN = [[(37 * slot + 11 * i) % 512 for i in range(6)] for slot in range(3)]
CASES = {
    "phi-restart-range": (*PHI, {"seed": 11, "restart_period": 3, "restart_penalty_low": 2 / 3, "restart_penalty_high": 6.0}),
    "llama-restart-range": (*LLAMA, {"seed": 12, "restart_period": 1, "restart_penalty_low": 0.0, "restart_penalty_high": 9.0}),
    "phi-one-slot": (*PHI, {"seed": 2**40 + 5, "population": 1, "children_per_parent": 33, "tokens": 2, "restart_period": 0}),
    "llama-one-slot": (*LLAMA, {"seed": 3, "population": 1, "children_per_parent": 1, "tokens": 5, "iterations": 40}),
    "phi-odd-sizes": (*PHI, {"seed": 21, "tokens": 17, "population": 5, "children_per_parent": 7, "top_k": 511}),
    "llama-odd-sizes": (*LLAMA, {"seed": 22, "tokens": 7, "population": 3, "children_per_parent": 13, "top_k": 1}),
    "phi-given": (*PHI, {"seed": 31, "tokens": 6, "population": 3, "initial_prompts": GIVEN}),
    "llama-given-one": (*LLAMA, {"seed": 32, "tokens": 6, "population": 4, "initial_prompts": GIVEN[:1], "penalty_max": 0.1}),
    "phi-every-token": (*PHI, {"seed": 41, "tokens": 3, "top_k": TOKENS_IN_TOKENIZER}),
    "llama-longest": (*LLAMA, {"seed": 42, "tokens": 128, "population": 2, "children_per_parent": 5, "iterations": 6}),
}


@pytest.mark.parametrize("name", CASES)
def test_fresh_checkpoint(core, tmp_path, name):
    architecture, settings, objective, options = CASES[name]
    options = DEFAULTS | options
    path = write(tmp_path / name, architecture(**settings), seed=sum(map(ord, name)))
    request = {"op": "search", "layer": objective[0], "neuron": objective[1], "options": options}
    [answer] = core(path, [request], dtype="float64", max_rows=200)
    assert "error" not in answer, answer

    history = list(reference_search(PlainModel(path), objective, options, range(TOKENS_IN_TOKENIZER)))
    for i, (got, expected) in enumerate(itertools.zip_longest(answer["iterations"], history)):
        assert got["ids"] == expected["ids"].tolist(), f"iteration {i}"
        assert got["target"] == pytest.approx(expected["target"].tolist(), rel=2e-7, abs=1e-7), f"iteration {i}"
        assert got["cross_entropy"] == pytest.approx(expected["cross_entropy"].tolist(), rel=2e-7), f"iteration {i}"
        assert got["keep"] == expected["keep"].tolist(), f"iteration {i}"
        assert got["restart_penalty"] == (expected["restart_penalty"] and pytest.approx(expected["restart_penalty"], rel=1e-6))
    frontier = reference_frontier(history)
    assert [point["ids"] for point in answer["frontier"]] == [list(ids) for ids, _ in frontier]
    assert [point["cross_entropy"] for point in answer["frontier"]] == pytest.approx([x for _, (x, _) in frontier], rel=2e-7)
    assert [point["target"] for point in answer["frontier"]] == pytest.approx([f for _, (_, f) in frontier], rel=2e-7, abs=1e-7)
