"""The core's model and evaluator give the numbers of transformers, on random checkpoints and on SmolLM2."""

import json
import os
import random

import pytest
import tokenizers
import torch
from checkpoints import TINY, write_tiny
from plain import PlainModel
from safetensors import safe_open

# Largest error allowed, as a share of the largest value. float64's are transformers' own: its RMSNorm computes in float32.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
# Scores are rounded to float32 once, from float64.
FLOAT32_ROUNDING = 1.2e-7
PENALTY = 0.7



def on_device(tolerance, path):
    """The tolerance for a checkpoint where the core runs (EPO_TEST_DEVICE): a GPU rounds Llama's RMSNorm, float32 in any dtype, in another order."""
    is_llama = json.loads((path / "config.json").read_text())["model_type"] == "llama"
    return max(tolerance, 1e-5) if is_llama and os.environ.get("EPO_TEST_DEVICE", "cpu") != "cpu" else tolerance


SENTENCES = [
    "The capital of France is",
    "Researchers found that the neuron fires on the names of rivers, and on little else.",
    "def main(argv):\n    return sum(int(x) for x in argv[1:])\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 東京は日本の首都です。",
]


def error(actual, expected):
    """The largest difference, as a share of the largest expected value."""
    actual = torch.as_tensor(actual, dtype=torch.float64)
    expected = torch.as_tensor(expected).double()
    assert actual.shape == expected.shape
    assert expected.abs().max() > 1e-3, "nothing to compare: the expected values vanish"
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def random_prompts(seed, vocab, lengths):
    draw = random.Random(seed)
    return [[draw.randrange(vocab) for _ in range(n)] for n in lengths]


def objectives_of(config):
    """First, middle and last layer, each with another neuron."""
    last = config.num_hidden_layers - 1
    return [[0, config.intermediate_size - 1], [last // 2, 3], [last, 0]]


def verify(core, path, dtype, *checks, **settings):
    """Runs checks over one loaded model. A check is a generator that yields its requests and is sent their answers."""
    requests = [next(check) for check in checks]
    answers = core(path, [one for some in requests for one in some], dtype=dtype, **settings)
    for check, some in zip(checks, requests, strict=True):
        with pytest.raises(StopIteration):
            check.send(answers[: len(some)])
        answers = answers[len(some) :]


def check_forward(plain, prompts, tolerance):
    layers = plain.model.config.num_hidden_layers
    requests = [{"op": "forward", "ids": ids, "layer": i % layers} for i, ids in enumerate(prompts)]
    answers = yield requests
    for request, answer in zip(requests, answers, strict=True):
        logits, neurons = plain.forward(request["ids"], request["layer"])
        assert error(answer["logits"], logits) < tolerance
        assert error(answer["neurons"], neurons) < tolerance


def check_prepare(plain, prompts, objective, tolerance):
    """Targets, cross-entropies, next tokens and gradients of `prompts`, which the core reads in one call."""
    layer, neuron = objective
    [answer] = yield [{"op": "prepare", "prompts": prompts, "layer": layer, "neuron": neuron, "penalty": PENALTY}]
    targets, cross_entropies = plain.scores(prompts, objective)
    exact_targets = [p["exact_target"] for p in answer["prompts"]]
    exact = [sum(p["surprisal"]) / len(p["surprisal"]) for p in answer["prompts"]]
    assert error(exact_targets, targets) < tolerance
    assert error(exact, cross_entropies) < tolerance
    for ids, prepared, target, cross_entropy in zip(prompts, answer["prompts"], exact_targets, exact, strict=True):
        assert prepared["target"] == pytest.approx(target, rel=FLOAT32_ROUNDING)
        assert prepared["cross_entropy"] == pytest.approx(cross_entropy, rel=FLOAT32_ROUNDING)
        logits, _ = plain.forward(ids, layer)
        assert prepared["next_token"] == logits[-1].argmax()
    # Over all prompts together, since a dead neuron has no gradient.
    for which, gradients in enumerate(zip(*(plain.embedding_gradients(ids, objective) for ids in prompts), strict=True)):
        key = ["target_gradient", "cross_entropy_gradient"][which]
        assert error(torch.cat([p[key] for p in answer["prompts"]]), torch.cat(gradients)) < tolerance
    # Rounded to float32; and Llama's two parts were rounded apart inside RMSNorm.
    one_hot = [plain.one_hot_gradients([ids], objective, [PENALTY])[0] for ids in prompts]
    assert error(torch.cat([p["gradient"] for p in answer["prompts"]]), torch.cat(one_hot)) < max(1e-6, tolerance)


def edits(draw, parent, vocab):
    """Candidates of one parent: every position swapped, and tokens inserted, deleted, appended, and several changed at once."""
    n = len(parent)
    token = lambda: draw.randrange(vocab)
    for p in range(n):
        yield p, [token(), *parent[p + 1 :]]
        yield p, parent[p:]  # Equal to its parent.
        yield p, [token(), token(), *parent[p:]]
        if p + 1 < n:
            yield p, parent[p + 1 :]
        yield p, [token() for _ in range(draw.randint(1, n))]
    yield n - 1, [parent[-1], token()]


def check_scores(plain, lengths, tolerance, max_rows):
    """Candidates of many parents, lengths and objectives, mixed in one call that takes several passes."""
    vocab = plain.model.config.vocab_size
    objectives = objectives_of(plain.model.config)
    prompts = random_prompts(3, vocab, lengths)
    parents = [[i % len(objectives), ids] for i, ids in enumerate(prompts)]
    draw = random.Random(4)
    candidates = [[i, p, tokens] for i, ids in enumerate(prompts) for p, tokens in edits(draw, ids, vocab)]
    draw.shuffle(candidates)
    [answer] = yield [{"op": "score", "objectives": objectives, "parents": parents, "candidates": candidates}]
    # JSON has no NaN: null is one.
    scores = torch.tensor([[float("nan") if v is None else v for v in score] for score in answer["scores"]], dtype=torch.float64)
    assert len(scores) == len(candidates) and sum(len(tokens) for _, _, tokens in candidates) > 3 * max_rows
    for which, objective in enumerate(objectives):
        mine = [c for c, (parent, _, _) in enumerate(candidates) if parents[parent][0] == which]
        texts = [parents[candidates[c][0]][1][: candidates[c][1]] + candidates[c][2] for c in mine]
        targets, cross_entropies = plain.scores(texts, objective)
        several = torch.tensor([len(ids) > 1 for ids in texts])  # One token has no cross-entropy.
        assert error(scores[mine, 0], targets) < tolerance
        assert error(scores[mine, 1][several], cross_entropies[several]) < tolerance
        assert scores[mine, 1][~several].isnan().all()


@pytest.mark.parametrize("dtype, tolerance", TOLERANCE.items())
def test_logits_activations_gradients(core, tiny, dtype, tolerance):
    plain = PlainModel(tiny, dtype)
    tolerance = on_device(tolerance, tiny)
    checks = [check_forward(plain, random_prompts(1, 600, [1, 2, 5, 12, 33, 128]), tolerance)]
    for objective in objectives_of(plain.model.config):
        checks.append(check_prepare(plain, random_prompts(2, 600, [12, 12, 2, 40, 7]), objective, tolerance))
    verify(core, tiny, dtype, *checks)


@pytest.mark.parametrize("dtype, tolerance", [("float64", FLOAT32_ROUNDING), ("float32", 1e-4)])
def test_candidate_scores(core, tiny, dtype, tolerance):
    lengths = [12, 12, 5, 1, 2, 31, 12, 9]
    tolerance = on_device(tolerance, tiny)
    verify(core, tiny, dtype, check_scores(PlainModel(tiny, dtype), lengths, tolerance, max_rows=300), max_rows=300)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_is_near_float64(core, tiny, dtype, tolerance):
    plain = PlainModel(tiny)
    for ids in random_prompts(5, 600, [12, 40]):
        requests = [
            {"op": "forward", "ids": ids, "layer": 1},
            {"op": "prepare", "prompts": [ids], "layer": 1, "neuron": 3, "penalty": PENALTY},
            {"op": "score", "objectives": [[1, 3]], "parents": [[0, ids]], "candidates": [[0, 4, ids[4:]], [0, 0, ids]]},
        ]
        forward, prepare, score = core(tiny, requests, dtype=dtype)
        logits, neurons = plain.forward(ids, 1)
        assert error(forward["logits"], logits) < tolerance
        assert error(forward["neurons"], neurons) < tolerance
        target, cross_entropy = (values.item() for values in plain.scores([ids], (1, 3)))
        largest = neurons.abs().max().item()
        for got in [[prepare["prompts"][0]["target"], prepare["prompts"][0]["cross_entropy"]], *score["scores"]]:
            assert got[0] == pytest.approx(target, abs=tolerance * largest)
            assert got[1] == pytest.approx(cross_entropy, rel=tolerance)
        [gradient] = plain.one_hot_gradients([ids], (1, 3), [PENALTY])
        got = prepare["prompts"][0]["gradient"]
        assert torch.cosine_similarity(got, gradient, dim=1).min() > 1 - tolerance


def test_every_form_is_read(tmp_path, root):
    """The tiny checkpoints are what this file says they are: shards, dtypes and config.json forms."""
    forms = {}
    for name in TINY:
        path = write_tiny(tmp_path / name, name)
        config = json.loads((path / "config.json").read_text())
        shards = sorted(path.glob("*.safetensors"))
        with safe_open(shards[0], "pt") as file:
            stored = file.get_slice(next(iter(file.keys()))).get_dtype()
        forms[name] = (len(shards) > 2, stored, "rope_parameters" in config, "rope_theta" in config)
    assert forms == {
        "phi": (False, "F32", True, False),
        "phi-partial-rotary": (True, "F32", False, True),
        "llama-gqa-tied": (False, "F64", True, False),
        "llama-bias": (True, "BF16", False, True),
        "llama-relu": (False, "F16", True, False),
    }


def test_phi2_wide_in_float16_shards(core, phi2_wide):
    assert len(list(phi2_wide.glob("model-0000?-of-00002.safetensors"))) == 2
    prompts = random_prompts(6, 51200, [12, 5])
    plain = PlainModel(phi2_wide, "float64")
    verify(core, phi2_wide, "float64", check_forward(plain, prompts[:1], 1e-9), check_prepare(plain, prompts, [1, 10239], 1e-9))
    del plain  # 3.4 GB
    plain = PlainModel(phi2_wide, "float32")
    checks = [check_forward(plain, prompts[1:], 1e-4), check_scores(plain, [4, 3, 2], 1e-4, max_rows=20)]
    verify(core, phi2_wide, "float32", *checks, max_rows=20)


@pytest.fixture(scope="module")
def sentences(smollm2_dir):
    tokenizer = tokenizers.Tokenizer.from_file(str(smollm2_dir / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES]


def test_smollm2(core, smollm2_dir, sentences):
    plain = PlainModel(smollm2_dir, "float64")
    checks = [check_forward(plain, sentences[:1], 1e-9), check_prepare(plain, sentences[2:3], [29, 100], 1e-9)]
    verify(core, smollm2_dir, "float64", *checks)
    plain = PlainModel(smollm2_dir, "float32")
    checks = [check_forward(plain, sentences[3:], 1e-4), check_prepare(plain, sentences[1:2], [8, 100], 1e-4)]
    verify(core, smollm2_dir, "float32", *checks, check_scores(plain, [6, 4, 3], 1e-4, max_rows=40), max_rows=40)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2_knows_the_capital_of_france(core, smollm2_dir, sentences, dtype):
    request = {"op": "prepare", "prompts": [sentences[0]], "layer": 8, "neuron": 1, "penalty": PENALTY, "one_hot": False}
    [answer] = core(smollm2_dir, [request], dtype=dtype)
    tokenizer = tokenizers.Tokenizer.from_file(str(smollm2_dir / "tokenizer.json"))
    assert tokenizer.decode([answer["prompts"][0]["next_token"]]) == " Paris"
