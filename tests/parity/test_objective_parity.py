"""Every kind of term, position, combination and context: values and gradients equal an independent computation over transformers, and
candidates packed equal candidates whole."""

import random

import pytest
import torch
from plain_objective import PlainObjective, load
from test_model_parity import FLOAT32_ROUNDING, PENALTY, edits, error, random_prompts, verify

# float64: values and gradients of what is computed twice, as shares of the largest.
EXACT = 1e-8


def vector(draw, config, scale=1.0):
    return [round(draw.gauss(0, scale), 4) for _ in range(config.hidden_size)]


def terms_of(config, layer, seed):
    """One of each kind, in one layer. `named`: by kind."""
    draw = random.Random(seed)
    token = lambda: draw.randrange(config.vocab_size)
    head = draw.randrange(config.num_attention_heads)
    named = {
        "neuron": {"neuron": [layer, draw.randrange(config.intermediate_size)]},
        "attention": {"attention": [layer, head, 1]},
        "head": {"output": {"layer": layer, "head": head, "vector": vector(draw, config)}},
        "mlp": {"output": {"layer": layer, "vector": vector(draw, config)}},
        "logit": {"logit": token()},
        "logit_difference": {"logit_difference": [token()]},
        "logit_difference_named": {"logit_difference": [token(), token()]},
        "cosine_vector": {"cosine": {"layer": layer, "point": "post_attention", "vector": vector(draw, config)}},
        "cosine_text": {"cosine": {"layer": layer, "point": "post_block", "text": [token() for _ in range(5)]}},
        "feature": {
            "feature": {
                "layer": layer, "point": "post_block", "encoder": vector(draw, config), "bias": 0.3, "decoder_bias": vector(draw, config, 0.1),
            }
        },
    }
    for point in ("pre_block", "post_attention", "post_block"):
        for standardise in (False, True):
            name = f"{point}{'_standardised' if standardise else ''}"
            named[name] = {"direction": {"layer": layer, "point": point, "vector": vector(draw, config), "standardise": standardise}}
    return named


def context(seed, config, prefix, suffix):
    draw = random.Random(seed)
    return {"prefix": [draw.randrange(config.vocab_size) for _ in range(prefix)], "suffix": [draw.randrange(config.vocab_size) for _ in range(suffix)]}


def off(actual, expected):
    """As error(), but of values that all vanish, as a ReLU's may, their size."""
    actual, expected = (torch.as_tensor(values, dtype=torch.float64) for values in (actual, expected))
    return actual.abs().max().item() if expected.abs().max() == 0 else error(actual, expected)


def values(plain, prompts):
    """(targets, cross_entropies), float64."""
    return torch.tensor([plain.values(ids) for ids in prompts], dtype=torch.float64).T


def check_objective(model, objective, prompts, tolerance=EXACT):
    """Values, and all gradients, of `prompts`."""
    plain = PlainObjective(None, objective, model=model)
    [answer] = yield [{"op": "prepare", "prompts": prompts, "objective": objective, "penalty": PENALTY}]
    assert "error" not in answer, answer
    targets, cross_entropies = values(plain, prompts)
    assert off([p["exact_target"] for p in answer["prompts"]], targets) < tolerance, objective
    # Rounded to float32, as scores are.
    assert error([p["cross_entropy"] for p in answer["prompts"]], cross_entropies) < FLOAT32_ROUNDING
    gradients = [plain.gradients(ids, PENALTY) for ids in prompts]
    for which, name in enumerate(("target_gradient", "cross_entropy_gradient")):
        got = torch.cat([p[name] for p in answer["prompts"]])
        want = torch.cat([g[which] for g in gradients])
        assert off(got, want) < tolerance, (name, objective)
    # Rounded to float32; and Llama's two parts were rounded apart inside RMSNorm.
    assert error(torch.cat([p["gradient"] for p in answer["prompts"]]), torch.cat([g[2] for g in gradients])) < 1e-6, objective


def check_candidates(model, objective, parents, tolerance=4 * FLOAT32_ROUNDING, swaps_only=False):
    """Packed scores against whole ones."""
    plain = PlainObjective(None, objective, model=model)
    draw = random.Random(5)
    vocab = model.config.vocab_size
    candidates = []
    for i, ids in enumerate(parents):
        # A single token has no cross-entropy.
        changes = [(p, tokens) for p, tokens in edits(draw, ids, vocab) if p + len(tokens) > 1]
        if swaps_only:
            changes = [(p, tokens) for p, tokens in changes if p + len(tokens) == len(ids)]
        candidates += [[i, p, tokens] for p, tokens in draw.sample(changes, min(12, len(changes)))]
        candidates.append([i, 1, ids[1:]])  # Equal to its parent.
    [answer] = yield [{"op": "score", "objectives": [objective], "parents": [[0, ids] for ids in parents], "candidates": candidates}]
    assert "error" not in answer, (answer, objective)
    targets, cross_entropies = values(plain, [parents[i][:p] + tokens for i, p, tokens in candidates])
    assert off([f for f, _ in answer["scores"]], targets) < tolerance, objective
    assert error([x for _, x in answer["scores"]], cross_entropies) < tolerance, objective


def check_both(model, objective, prompts, **settings):
    """A check of two requests."""
    first, second = check_objective(model, objective, prompts), check_candidates(model, objective, prompts, **settings)
    requests = [*next(first), *next(second)]
    answers = yield requests
    for check, answer in zip((first, second), answers, strict=True):
        with pytest.raises(StopIteration):
            check.send([answer])


@pytest.fixture(scope="module")
def plain_model(tiny):
    return load(tiny)


def middle_layers(config):
    last = config.num_hidden_layers - 1
    return sorted({0, last // 2, last})


def test_every_term_at_first_middle_and_last_layers(core, tiny, plain_model):
    prompts = random_prompts(11, 600, [9, 5])
    checks = []
    for layer in middle_layers(plain_model.config):
        for number, term in enumerate(terms_of(plain_model.config, layer, 20 + layer).values()):
            objective = {"terms": [term], "minimize": (number + layer) % 2 == 1}
            checks.append(check_both(plain_model, objective, prompts))
    verify(core, tiny, "float64", *checks)


def test_every_term_behind_a_prefix(core, tiny, plain_model):
    prompts = random_prompts(12, 600, [6, 6, 3])
    config = plain_model.config
    checks = []
    for number, term in enumerate(terms_of(config, 1, 31).values()):
        contexts = [context(number, config, prefix=7, suffix=number % 3)]
        checks.append(check_both(plain_model, {"terms": [term], "contexts": contexts}, prompts))
    verify(core, tiny, "float64", *checks)


@pytest.mark.parametrize("contexts", ["none", "around"])
def test_every_position_and_reduction(core, tiny, plain_model, contexts):
    prompts = random_prompts(13, 600, [6, 6])
    config = plain_model.config
    around = [context(3, config, prefix=4, suffix=3)] if contexts == "around" else []
    positions = [
        {"first": -1}, {"first": 2}, {"frame": "prompt", "first": 0}, {"frame": "prompt", "first": -2}, {"first": -2},
        {"reduce": "max", "first": 0, "last": -1}, {"reduce": "mean", "first": 0, "last": -1},
        {"reduce": "max", "frame": "prompt", "first": 1, "last": -2}, {"reduce": "mean", "frame": "prompt", "first": 2, "last": 4},
    ]  # fmt: skip
    if around:
        positions = [p for p in positions if p != {"first": 2}]  # The prefix's own: nothing that a prompt changes.
    checks = []
    for layer, name in ((0, "neuron"), (1, "post_block_standardised"), (2, "logit"), (2, "logit_difference"), (1, "attention"), (2, "cosine_vector")):
        for position in positions:
            term = {**terms_of(config, layer, 40)[name], "position": position}
            if name == "attention":
                key = position["first"] if position["first"] < 0 else 0
                term = {**term, "attention": [layer, term["attention"][1], key]}
            checks.append(check_both(plain_model, {"terms": [term], "contexts": around}, prompts, swaps_only=True))
    verify(core, tiny, "float64", *checks)


def test_combinations_and_contexts(core, tiny, plain_model):
    config = plain_model.config
    kinds = terms_of(config, 1, 50)
    prompts = random_prompts(14, 600, [5, 5, 8])
    three = [{**kinds["neuron"], "weight": 1.5}, {**kinds["post_block"], "weight": -0.5, "scale": 3.0}, {**kinds["logit"], "weight": 0.25}]
    continuations = [{"continuation": [5, 9, 2]}, {"continuation": [7]}, {**kinds["mlp"], "weight": 0.1}]
    relu = {"feature": {**kinds["feature"]["feature"], "activation": "relu"}, "position": {"reduce": "mean", "first": 0}}
    jump = {"feature": {**kinds["feature"]["feature"], "activation": "jump_relu", "threshold": 1.0}, "position": {"reduce": "max", "first": 0}}
    several = [context(s, config, prefix, suffix) for s, (prefix, suffix) in enumerate([(5, 0), (0, 4), (9, 2), (0, 0)])]
    objectives = [
        {"terms": three},
        {"terms": three, "minimize": True, "contexts": several[:1]},
        {"terms": three, "combine": "soft_min", "temperature": 0.7},
        {"terms": three, "combine": "soft_min", "minimize": True, "contexts": several},
        {"terms": three, "contexts": several, "across": "min"},
        {"terms": three, "contexts": several, "across": "mean", "fluency_over_suffix": True},
        {"terms": [kinds["neuron"]], "contexts": several[2:3], "fluency_over_suffix": True},
        {"terms": continuations},
        {"terms": continuations[:1], "contexts": several[:1]},
        {"terms": continuations, "contexts": several, "across": "min", "combine": "soft_min"},
        {"terms": [relu]},
        {"terms": [relu, jump], "contexts": several[1:3]},
        {"terms": [kinds["attention"], kinds["head"]], "contexts": several[2:3]},
    ]
    verify(core, tiny, "float64", *(check_both(plain_model, objective, prompts) for objective in objectives))


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-4), ("bfloat16", 0.15)])
def test_the_fast_path_holds_for_every_term(core, tiny, plain_model, dtype, tolerance):
    """Packed by our own kernels, behind prefixes of many lengths, against float64 whole."""
    config = plain_model.config
    prompts = random_prompts(15, 600, [7, 7])
    checks = []
    kinds = terms_of(config, 1, 60)
    kinds["continuation"] = {"continuation": [3, 4]}
    # The token that the model expects after the first prompt: it must not be its own best other.
    with torch.no_grad():
        kinds["logit_difference_expected"] = {"logit_difference": [plain_model(torch.tensor(prompts[:1])).logits[0, -1].argmax().item()]}
    for number, term in enumerate(kinds.values()):
        contexts = [context(number, config, prefix=number * 7 % 90, suffix=number % 3)]
        objective = {"terms": [term], "contexts": [] if term is kinds["logit_difference_expected"] else contexts}
        checks.append(check_candidates(plain_model, objective, prompts, tolerance=tolerance))
    verify(core, tiny, dtype, *checks)


def test_smollm2_behind_a_long_prefix(core, smollm2_dir):
    """Keys of a prefix come in several stretches; its rows are read once."""
    model = load(smollm2_dir, "float32")
    config = model.config
    terms = [{**terms_of(config, 15, 70)[name], "scale": scale} for name, scale in (("neuron", 0.1), ("post_block_standardised", 10.0), ("logit", 5.0))]
    objective = {"terms": terms, "contexts": [context(71, config, prefix=300, suffix=4), context(72, config, prefix=131, suffix=0)]}
    parents = random_prompts(16, config.vocab_size, [6, 6])
    verify(core, smollm2_dir, "float32", check_candidates(model, objective, parents, tolerance=1e-4))
