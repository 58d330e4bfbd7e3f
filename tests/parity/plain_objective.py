"""Objectives computed the plain way: transformers' modules watched by hooks, autograd, every sequence whole, no trick.

Objectives are dictionaries as tests/tools/objective_json.h describes them."""

import contextlib

import torch
import transformers
from plain import DTYPES


class PlainObjective:
    """An objective on a checkpoint directory run by transformers on the CPU."""

    def __init__(self, path, objective, dtype="float64", model=None):
        self.model = model or load(path, dtype)
        self.embedding = self.model.get_input_embeddings().weight
        self.objective = objective
        self.contexts = objective.get("contexts") or [{}]
        self.of_texts = {}

    def values(self, ids):
        """(f, x) of a prompt, as floats."""
        with torch.no_grad():
            f, x = self._values(self._one_hot(ids))
        return f.item(), x.item()

    def gradients(self, ids, penalty):
        """The gradients of f and of x with respect to the embedded tokens, labels held fixed, [n, hidden] each; and that of -f +
        penalty * x with respect to the one-hot tokens by both paths, [n, vocab]."""
        embedded = self.embedding[torch.tensor(ids)].clone().requires_grad_()
        f, x = self._values(self._one_hot(ids), embedded)
        of_f, of_x = (torch.autograd.grad(v, embedded, retain_graph=True, allow_unused=True)[0] for v in (f, x))
        one_hot = self._one_hot(ids).requires_grad_()
        f, x = self._values(one_hot)
        [both] = torch.autograd.grad(-f + penalty * x, one_hot)
        return [torch.zeros_like(embedded) if g is None else g for g in (of_f, of_x)] + [both]

    def _one_hot(self, ids):
        return torch.nn.functional.one_hot(torch.tensor(ids), self.embedding.shape[0]).to(self.embedding.dtype)

    def _values(self, one_hot, embedded=None):
        targets, cross_entropies = [], []
        for context in self.contexts:
            prefix, suffix = (self._one_hot(context.get(part, [])) if context.get(part) else one_hot[:0] for part in ("prefix", "suffix"))
            middle = one_hot @ self.embedding if embedded is None else embedded
            whole = torch.cat([prefix, one_hot, suffix])
            rows = torch.cat([prefix @ self.embedding, middle, suffix @ self.embedding])
            first, last = len(prefix), len(prefix) + len(one_hot)
            # The first continuation follows in the same sequence, which changes nothing before it.
            follows = next((term["continuation"] for term in self.objective["terms"] if "continuation" in term), [])
            seen = self._run(torch.cat([rows, self._one_hot(follows) @ self.embedding]) if follows else rows)
            counted = slice(max(first, 1), len(whole) if self.objective.get("fluency_over_suffix") else last)
            log_probs = torch.log_softmax(seen["logits"], -1)[counted.start - 1 : counted.stop - 1]
            cross_entropies.append(-(log_probs * whole[counted]).sum(-1).mean())
            targets.append(self._combine([self._term(term, seen, rows, (first, last)) for term in self.objective["terms"]]))
        targets = torch.stack(targets)
        f = targets.min() if self.objective.get("across") == "min" else targets.mean()
        return f, torch.stack(cross_entropies).mean()

    def _combine(self, values):
        terms = self.objective["terms"]
        values = torch.stack([v * t.get("weight", 1.0) / t.get("scale", 1.0) for v, t in zip(values, terms, strict=True)])
        if self.objective.get("combine") == "soft_min":
            temperature = self.objective.get("temperature", 1.0)
            total = -temperature * torch.log(torch.exp(-values / temperature).mean())
        else:
            total = values.sum()
        return -total if self.objective.get("minimize") else total

    def _term(self, term, seen, rows, window):
        if "continuation" in term:
            tokens = torch.tensor(term["continuation"])
            first = next(t for t in self.objective["terms"] if "continuation" in t)
            logits = seen["logits"] if term is first else self._run(torch.cat([rows, self.embedding[tokens]]))["logits"]
            log_probs = torch.log_softmax(logits, -1)[len(rows) - 1 : len(rows) - 1 + len(tokens)]
            return log_probs.gather(1, tokens[:, None]).sum()
        position = {"frame": "sequence", "reduce": "one", "first": -1, "last": -1, **term.get("position", {})}
        frame = list(range(len(rows)))
        if position["frame"] == "prompt":
            frame = frame[window[0] : window[1]]
        if position["reduce"] == "one":
            return self._at(term, seen, frame, frame[position["first"]])
        first, last = (frame.index(frame[position[end]]) for end in ("first", "last"))
        values = torch.stack([self._at(term, seen, frame, row) for row in frame[first : last + 1]])
        return values.max() if position["reduce"] == "max" else values.mean()

    def _at(self, term, seen, frame, row):
        """A term at one row of the sequence."""
        vector = lambda values: torch.tensor(values, dtype=torch.float32).to(self.embedding.dtype)  # As they travel.
        [kind] = term.keys() - {"position", "weight", "scale"}
        of = term[kind]
        match kind:
            case "neuron":
                return seen["neurons", of[0]][row, of[1]]
            case "direction":
                h = seen[of.get("point", "pre_block"), of["layer"]][row]
                if of.get("standardise"):
                    h = (h - h.mean()) / h.std()
                return h @ vector(of["vector"])
            case "feature":
                h = seen[of.get("point", "pre_block"), of["layer"]][row]
                if "decoder_bias" in of:
                    h = h - vector(of["decoder_bias"])
                z = h @ vector(of["encoder"]) + of.get("bias", 0.0)
                if of.get("activation") == "relu":
                    return torch.relu(z)
                if of.get("activation") == "jump_relu":
                    return z * (z > of["threshold"])
                return z
            case "attention":
                layer, head, key = of
                return seen["attention", layer][head, row, frame[key]]
            case "output":
                if "head" not in of:
                    return seen["mlp", of["layer"]][row] @ vector(of["vector"])
                heads, matrix = seen["heads", of["layer"]], self._attention(of["layer"])[1].weight
                width = heads.shape[1] // self.model.config.num_attention_heads
                part = slice(of["head"] * width, (of["head"] + 1) * width)
                return (matrix[:, part] @ heads[row, part]) @ vector(of["vector"])
            case "logit":
                return seen["logits"][row, of]
            case "logit_difference":
                logits = seen["logits"][row]
                if len(of) > 1:
                    return logits[of[0]] - logits[of[1]]
                return logits[of[0]] - torch.cat([logits[: of[0]], logits[of[0] + 1 :]]).max()
            case "cosine":
                h = seen[of.get("point", "pre_block"), of["layer"]][row]
                if "text" in of:
                    with torch.no_grad():
                        alone = self._run(self.embedding[torch.tensor(of["text"])])
                    with_ = alone[of.get("point", "pre_block"), of["layer"]][-1]
                else:
                    with_ = vector(of["vector"])
                return torch.cosine_similarity(h, with_, dim=0)

    def _attention(self, layer):
        """(module, its output matrix)."""
        attention = self.model.model.layers[layer].self_attn
        return attention, attention.dense if hasattr(attention, "dense") else attention.o_proj

    def _run(self, rows):
        """What the modules see on one sequence of embedded tokens, by (name, layer), and the logits."""
        seen = {}

        def keep(name, layer, value):
            seen[name, layer] = value[0]

        with contextlib.ExitStack() as stack:
            for i, block in enumerate(self.model.model.layers):
                attention, output = self._attention(i)
                second = block.mlp.fc2 if hasattr(block.mlp, "fc2") else block.mlp.down_proj
                hooks = [
                    block.register_forward_pre_hook(lambda m, args, kwargs, i=i: keep("pre_block", i, args[0] if args else kwargs["hidden_states"]), with_kwargs=True),
                    block.register_forward_hook(lambda m, args, out, i=i: keep("post_block", i, out[0] if isinstance(out, tuple) else out)),
                    attention.register_forward_hook(lambda m, args, out, i=i: keep("attended", i, out[0])),
                    output.register_forward_pre_hook(lambda m, args, i=i: keep("heads", i, args[0])),
                    second.register_forward_pre_hook(lambda m, args, i=i: keep("neurons", i, args[0])),
                    block.mlp.register_forward_hook(lambda m, args, out, i=i: keep("mlp", i, out)),
                ]
                for hook in hooks:
                    stack.callback(hook.remove)
            out = self.model(inputs_embeds=rows[None], use_cache=False, output_attentions=True)
        for i, weights in enumerate(out.attentions):
            seen["attention", i] = weights[0]
            seen["post_attention", i] = seen["pre_block", i] + seen["attended", i]
        seen["logits"] = out.logits[0]
        return seen


def attend(module, query, key, value, attention_mask, scaling, **settings):
    """Attention as transformers' own, which gives no weights, or takes their softmax in float32."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    future = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).triu(1)
    weights = torch.softmax((query @ key.transpose(2, 3) * scaling).masked_fill(future, -torch.inf), -1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


transformers.AttentionInterface.register("weights_in_full", attend)


def load(path, dtype="float64"):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[dtype], attn_implementation="weights_in_full").eval()
    return model.requires_grad_(False)
