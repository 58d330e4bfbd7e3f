#!/usr/bin/env python3
"""The search as one would write it over transformers: what epo-bench is paired with.

A plain loop: gradients of each parent by autograd down to the one-hot tokens, full forward passes over batches of 256 children, the whole
log-softmax. Prints the same figures as `epo-bench step -o json` where it has them.
"""

import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.nn.functional as F
import transformers

BATCH = 256


class Neuron:
    """Reads one neuron at the last token: an input of the MLP's second matrix."""

    def __init__(self, model, layer, neuron):
        mlp = model.model.layers[layer].mlp
        second = mlp.fc2 if hasattr(mlp, "fc2") else mlp.down_proj
        second.register_forward_pre_hook(lambda _, inputs: setattr(self, "value", inputs[0][:, -1, neuron]))


@torch.no_grad()
def score(model, target, ids):
    targets, entropies = [], []
    for batch in ids.split(BATCH):
        logits = model(batch).logits[:, :-1]
        nll = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none")
        entropies.append(nll.view(len(batch), -1).mean(1))
        targets.append(target.value.float())
    return torch.cat(targets), torch.cat(entropies)


def token_gradients(model, target, ids, penalties):
    embedding = model.get_input_embeddings().weight
    one_hot = F.one_hot(ids, len(embedding)).to(embedding.dtype).requires_grad_()
    logits = model(inputs_embeds=one_hot @ embedding).logits[:, :-1]
    entropy = -(torch.log_softmax(logits, -1) * one_hot[:, 1:]).sum(-1).mean(-1)
    (-target.value + penalties.to(entropy.dtype) * entropy).sum().backward()
    return target.value.detach().float(), entropy.detach().float(), one_hot.grad.float()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--neuron", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, help="steps before the timed ones")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--population", type=int, default=8)
    parser.add_argument("--children", type=int, default=32)
    parser.add_argument("--topk", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).to(device).eval()
    model.requires_grad_(False)
    target = Neuron(model, args.layer, args.neuron)
    torch.manual_seed(args.seed)
    population, count = args.population, args.population * args.children
    penalties = torch.exp(torch.linspace(math.log(0.1), math.log(10), population)).to(device)
    ids = torch.randint(0, model.config.vocab_size, (population, args.tokens)).to(device)

    steps = []
    for step in range(args.warm_up + args.iterations):
        start = time.perf_counter()
        f, x, gradients = token_gradients(model, target, ids, penalties)
        best = (-gradients).topk(args.topk, -1).indices
        source = torch.arange(count, device=device) % population
        position = torch.randint(0, args.tokens, (count,)).to(device)
        rank = torch.randint(0, args.topk, (count,)).to(device)
        children = ids[source].clone()
        children[torch.arange(count, device=device), position] = best[source, position, rank]
        child_f, child_x = score(model, target, children)
        pool, f, x = torch.cat((ids, children)), torch.cat((f, child_f)), torch.cat((x, child_x))
        keep = (f[None] - penalties[:, None] * x[None]).argmax(1)
        ids = pool[keep]
        if device == "cuda":
            torch.cuda.synchronize()
        if step >= args.warm_up:
            steps.append(time.perf_counter() - start)

    print(json.dumps({
        "model": args.model, "device": device, "dtype": args.dtype, "threads": torch.get_num_threads(), "layer": args.layer,
        "tokens": args.tokens, "iterations": len(steps), "step_seconds_median": statistics.median(steps),
        "step_seconds_p90": sorted(steps)[int(0.9 * (len(steps) - 1) + 0.5)],
        "candidates_per_second": count * len(steps) / sum(steps),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }, indent=2))


if __name__ == "__main__":
    main()
