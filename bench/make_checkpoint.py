#!/usr/bin/env python3
"""Writes a checkpoint with Phi-2's shapes and random weights, for measuring where Phi-2 itself cannot be had.

usage: bench/make_checkpoint.py DIR [--dtype bfloat16|float16|float32] [--layers 32] [--seed 0]     (5.6 GB in the half types)

The same names, shapes, shards of a few hundred MB and config.json as the published checkpoint; the tokenizer is the embedded model's, so
the ids above its own have no text.
"""

import argparse
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCAB, HIDDEN, INTERMEDIATE, HEADS = 51200, 2560, 10240, 32


def layer_shapes(layer):
    name = f"model.layers.{layer}."
    shapes = {f"{name}self_attn.{part}.weight": (HIDDEN, HIDDEN) for part in ("q_proj", "k_proj", "v_proj", "dense")}
    shapes[f"{name}mlp.fc1.weight"] = (INTERMEDIATE, HIDDEN)
    shapes[f"{name}mlp.fc2.weight"] = (HIDDEN, INTERMEDIATE)
    shapes |= {weight.replace(".weight", ".bias"): shape[:1] for weight, shape in shapes.items()}
    return shapes | {f"{name}input_layernorm.{part}": (HIDDEN,) for part in ("weight", "bias")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = ROOT / "models/smollm2-135m/tokenizer.json"
    if not tokenizer.exists():
        sys.exit(f"{tokenizer} is missing: run scripts/fetch-model smollm2")
    args.dir.mkdir(parents=True, exist_ok=True)

    ends = {"model.final_layernorm.weight": (HIDDEN,), "model.final_layernorm.bias": (HIDDEN,)}
    ends |= {"lm_head.weight": (VOCAB, HIDDEN), "lm_head.bias": (VOCAB,)}
    shards = [{"model.embed_tokens.weight": (VOCAB, HIDDEN)}]
    shards += [layer_shapes(first) | (layer_shapes(first + 1) if first + 1 < args.layers else {}) for first in range(0, args.layers, 2)]
    shards += [ends]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(args.seed)
    dtype = getattr(torch, args.dtype)
    index, total = {}, 0
    for number, shapes in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for weight, shape in shapes.items():
            value = torch.empty(shape, dtype=dtype)
            for rows in value.view(shape[0], -1).split(4096):
                rows.copy_(torch.randn(rows.shape, generator=generator, device=device) * 0.02)
            tensors[weight] = value + 1 if "norm.weight" in weight else value
            index[weight] = name
            total += value.numel() * value.element_size()
        save_file(tensors, args.dir / name, metadata={"format": "pt"})
        print(f"{name}: {total / 1e9:.1f} GB so far", file=sys.stderr)
    (args.dir / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2))
    (args.dir / "config.json").write_text(json.dumps({
        "architectures": ["PhiForCausalLM"], "model_type": "phi", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": args.layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "partial_rotary_factor": 0.4,
        "rope_theta": 10000.0, "rope_scaling": None, "qk_layernorm": False, "tie_word_embeddings": False, "bos_token_id": 50256,
        "eos_token_id": 50256, "torch_dtype": args.dtype}, indent=2))
    shutil.copy(tokenizer, args.dir / "tokenizer.json")


if __name__ == "__main__":
    main()
