"""Random checkpoints in Hugging Face layout, with values large enough that attention, norms and biases all matter."""

import json
import pathlib
import shutil

import torch
import transformers

TOKENIZER = pathlib.Path(__file__).parent / "phi-tiny/tokenizer.json"  # 512 tokens


def write(path, config, *, seed, std=0.15, embedding_std=1.0, stored=torch.float32, max_shard_size="5GB", published=False):
    """Writes a checkpoint of `config` to `path`, and returns it. `published`: config.json in the form that Phi-2 was published in,
    with the rotary settings at the top level."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model = model.to(stored).to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                scale, shift = 0.2, 1.0
            else:
                scale, shift = embedding_std if "embed_tokens" in name else std, 0.0
            for rows in parameter.view(parameter.shape[0], -1).split(4096):
                rows.copy_(torch.randn(rows.shape, generator=generator) * scale + shift)
    model.save_pretrained(path, max_shard_size=max_shard_size)
    shutil.copy(TOKENIZER, path / "tokenizer.json")
    if published:
        text = json.loads((path / "config.json").read_text())
        rope = text.pop("rope_parameters")
        text["rope_theta"] = rope["rope_theta"]
        text["rope_scaling"] = None
        if "partial_rotary_factor" in rope:
            text["partial_rotary_factor"] = rope["partial_rotary_factor"]
        (path / "config.json").write_text(json.dumps(text, indent=2))
    return path


def phi(**settings):
    rope = {"rope_type": "default", "rope_theta": settings.pop("rope_theta", 10000.0)}
    rope["partial_rotary_factor"] = settings.pop("partial_rotary_factor", 0.5)
    defaults = {"vocab_size": 600, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 160, "num_hidden_layers": 3}
    return transformers.PhiConfig(**{**defaults, "max_position_embeddings": 128, "rope_parameters": rope, **settings})


def llama(**settings):
    rope = {"rope_type": "default", "rope_theta": settings.pop("rope_theta", 10000.0)}
    defaults = {"vocab_size": 600, "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 112}
    defaults |= {"num_hidden_layers": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}
    return transformers.LlamaConfig(**{**defaults, "rope_parameters": rope, **settings})


def write_tiny(path, name):
    """One of TINY by name: between them every shape, storage and config.json form that the core reads."""
    seed = 100 + TINY.index(name)
    match name:
        case "phi":
            return write(path, phi(), seed=seed)
        case "phi-partial-rotary":  # Heads of 40 of which 16 channels turn, as Phi-2's 32 of 80.
            config = phi(
                hidden_size=80, num_attention_heads=2, partial_rotary_factor=0.4, rope_theta=500.0, intermediate_size=83,
                hidden_act="gelu", tie_word_embeddings=True,
            )
            return write(path, config, seed=seed, max_shard_size="80KB", published=True)
        case "llama-gqa-tied":
            return write(path, llama(tie_word_embeddings=True, rope_theta=5000.0), seed=seed, stored=torch.float64)
        case "llama-bias":  # Heads wider than hidden / heads, all of them on one key; no size a multiple of a vector's lanes.
            config = llama(
                attention_bias=True, mlp_bias=True, head_dim=10, num_key_value_heads=1, tie_word_embeddings=False,
                hidden_size=42, intermediate_size=113,
            )
            return write(path, config, seed=seed, stored=torch.bfloat16, max_shard_size="30KB", published=True)
        case "llama-relu":
            return write(path, llama(hidden_act="relu", tie_word_embeddings=False), seed=seed, stored=torch.float16)
    raise ValueError(name)


TINY = ["phi", "phi-partial-rotary", "llama-gqa-tied", "llama-bias", "llama-relu"]


def write_phi2_wide(path):
    """Two layers of Phi-2's real width, float16, in two shards, with Phi-2's form of config.json."""
    config = phi(
        vocab_size=51200, hidden_size=2560, num_attention_heads=32, intermediate_size=10240, num_hidden_layers=2,
        max_position_embeddings=2048, partial_rotary_factor=0.4,
    )
    return write(path, config, seed=7, std=0.03, stored=torch.float16, max_shard_size="500MB", published=True)
